package player

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

var goodLink = smapi.Link{URL: "https://auth.example.com/device?user_code=ABCD", Code: "ABCD-EFGH", Show: true, DeviceID: "sealed <&>"}

func pairAnswer(w http.ResponseWriter) { _, _ = w.Write(smapi.SignedIn("token", "key", "hash")) }

func faultAnswer(f smapi.Fault) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(f.Envelope("ABCDEFGH"))
	}
}

func TestAListenerSignsInAsAnAppHasIt(t *testing.T) {
	for name, test := range map[string]struct {
		link  func(*smapi.Link) []byte
		polls []func(http.ResponseWriter)
		want  SignInSummary
	}{
		"at the third poll": {nil, []func(http.ResponseWriter){faultAnswer(smapi.NotLinkedRetry), faultAnswer(smapi.ServiceUnavailable), pairAnswer}, SignInSummary{SignedIn, "", "", 3}},
		"refused":           {nil, []func(http.ResponseWriter){faultAnswer(smapi.LinkFailed)}, SignInSummary{NotLinked, "", "ABCDEFGH", 1}},
		"never":             {nil, []func(http.ResponseWriter){faultAnswer(smapi.NotLinkedRetry)}, SignInSummary{TooLate, "", "", 0}},
		"a blank pair": {nil, []func(http.ResponseWriter){func(w http.ResponseWriter) {
			_, _ = w.Write(smapi.Pair(smapi.GetDeviceAuthToken, "", ""))
		}}, SignInSummary{SignInAgain, "", "", 1}},
		"no page":        {func(l *smapi.Link) []byte { l.URL = "sonos://x"; return smapi.AppLink(l, "X") }, nil, SignInSummary{NotAccepted, "a regUrl that is no web page", "", 0}},
		"a long code":    {func(l *smapi.Link) []byte { l.Code = strings.Repeat("x", 33); return smapi.AppLink(l, "X") }, nil, SignInSummary{NotAccepted, "a linkCode that is blank or has more than 32 characters", "", 0}},
		"a long id":      {func(l *smapi.Link) []byte { l.DeviceID = strings.Repeat("x", 1025); return smapi.AppLink(l, "X") }, nil, SignInSummary{NotAccepted, "a linkDeviceId of more than 1024 characters", "", 0}},
		"no text":        {func(l *smapi.Link) []byte { return smapi.AppLink(l, "") }, nil, SignInSummary{NotAccepted, "a blank appUrlStringId", "", 0}},
		"another answer": {smapi.DeviceLinkCode, nil, SignInSummary{NotAccepted, "an answer to another method", "", 0}},
		"out of order": {func(l *smapi.Link) []byte {
			return []byte(strings.Replace(string(smapi.AppLink(l, "X")), "<linkCode>ABCD-EFGH</linkCode><showLinkCode>true</showLinkCode>", "<showLinkCode>true</showLinkCode><linkCode>ABCD-EFGH</linkCode>", 1))
		}, nil, SignInSummary{NotAccepted, "elements of deviceLink out of order", "", 0}},
		"no such method": {func(*smapi.Link) []byte { return nil }, nil, SignInSummary{NoLink, "Server.ServiceUnknownError", "", 0}},
	} {
		polls := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			call, _, err := smapi.Read(r, []smapi.Method{smapi.GetDeviceAuthToken, smapi.Poll, smapi.GetAppLink})
			switch {
			case call == nil:
				t.Errorf("%s: no call: %v in %s", name, err, body)
			case call.Method == smapi.Poll:
				if call.LinkDeviceID != goodLink.DeviceID {
					t.Errorf("%s: polls with %q", name, call.LinkDeviceID)
				}
				test.polls[min(polls, len(test.polls)-1)](w)
				polls++
			case test.link == nil:
				_, _ = w.Write(smapi.AppLink(&goodLink, "SIGN_IN"))
			default:
				link := goodLink
				if answer := test.link(&link); answer != nil {
					_, _ = w.Write(answer)
					return
				}
				faultAnswer(smapi.Fault{Code: "Server.ServiceUnknownError", Text: "?"})(w)
			}
		}))
		shown := 0
		s := SignIn{
			Client: &Client{URL: server.URL, Timeout: 10 * time.Second, Transport: NewTransport(1, false)},
			Every:  time.Millisecond, For: 20 * time.Millisecond,
			Show: func(l Link) {
				if shown++; l.URL != goodLink.URL || l.Code != goodLink.Code || !l.Show {
					t.Errorf("%s: shown %+v", name, l)
				}
			},
		}
		got := s.Run(context.Background())
		if test.want.Outcome == TooLate {
			test.want.Polls = got.Polls
		}
		if test.want.Outcome == NoLink {
			test.want.Reference = got.Reference
		}
		if got != test.want || (shown == 1) != (test.polls != nil) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		server.Close()
	}
}

func TestASignInThatIsEndedEarlySaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("SOAPAction"), "getAppLink") {
			_, _ = w.Write(smapi.AppLink(&goodLink, "SIGN_IN"))
			return
		}
		cancel()
		faultAnswer(smapi.NotLinkedRetry)(w)
	}))
	defer server.Close()
	s := SignIn{
		Client: &Client{URL: server.URL, Timeout: 10 * time.Second, Transport: NewTransport(1, false)},
		Every:  time.Hour, For: time.Hour, Show: func(Link) {},
	}
	if got := s.Run(ctx); got.Outcome != GaveUp || got.Polls != 1 {
		t.Errorf("%+v", got)
	}
}

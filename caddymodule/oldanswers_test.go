package caddymodule_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

const (
	nativeLogin   = "<login><username>testuser</username><password>12345</password></login>"
	nativeSession = "<sessionId>native</sessionId>"
)

// wireAnswer is all that a site answers to an everyday call, without the date.
func wireAnswer(t *testing.T, s *caddytest.Site, account string) string {
	t.Helper()
	host := strings.TrimPrefix(s.URL, "http://")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	body := fmt.Sprintf(caddytest.Everyday, account, "getMetadata")
	fmt.Fprintf(c, "POST /smapi HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body)
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(string(all), "\r\n"), func(line string) bool { return strings.HasPrefix(line, "Date: ") })
	for i, line := range lines {
		if names, ok := strings.CutPrefix(line, "Trailer: "); ok { // which Caddy writes in any order
			lines[i] = fmt.Sprint("Trailer: ", slices.Sorted(strings.SplitSeq(names, ", ")))
		}
	}
	return strings.Join(lines, "\n")
}

func loginToken(authToken, key string) string {
	return "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>Sonos_abc123_1</householdId></loginToken>"
}

// A fault is held back until it is known what it says. That shows nowhere.
func TestAnAnswerThatIsHeldBackIsOnTheWireAsThroughABareProxy(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"trailers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-End, X-Other, X-Front")
			w.Header().Set("X-Other", "in front")
			w.Header().Set(http.TrailerPrefix+"X-Late", "late")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "fault")
			w.Header().Set("X-End", "end")
			w.Header().Set("X-Other", "behind")
		},
		"one that breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "fault")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"no gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "no gzip, a faultcode")
		},
		"early hints": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "<x>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "fault")
		},
		"longer than is held": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "200000")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, strings.Repeat("x", 200000))
		},
		"nothing": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, old := caddytest.Rotate(t, 3600), caddytest.Serve(t, answer)
			s := caddytest.Run(t, "header X-Front front\n"+withOld(endpoint, old, caddytest.VaultFile(t), "login"))
			authToken, key := s.UpgradeOf(t, "login")
			want := wireAnswer(t, s, nativeLogin)
			if got := wireAnswer(t, s, loginToken(authToken, key)); got != want {
				t.Errorf("%.300q, want %.300q", got, want)
			}
		})
	}
}

// What an old service says in the place of a session is kept for all who wait for it, and goes to each of them as if it alone had
// asked.
func TestAnAnswerWithoutASessionGoesToEachCallAsItCame(t *testing.T) {
	refuses := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Old", "1")
		w.Header().Set("X-Front", "old")
		caddytest.Says(http.StatusInternalServerError, caddytest.Fault("Client.LoginUnauthorized"))(w, r)
	}
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Serve(t, refuses)
	s := caddytest.Run(t, "header X-Front front\nheader >X-Old 1 11\n"+withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	want := wireAnswer(t, s, nativeSession)
	var all sync.WaitGroup
	for range 2 {
		for range 8 {
			all.Go(func() {
				if got := wireAnswer(t, s, loginToken(authToken, key)); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
		all.Wait()
	}
	if asked := len(old.Asked()); asked != 2 {
		t.Errorf("the old service was asked %d times", asked-1)
	}
}

func TestALongAnswerWithoutASessionIsItsStatusAlone(t *testing.T) {
	endpoint := caddytest.Rotate(t, 3600)
	old := caddytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, strings.Repeat("x", 100000))
	})
	s := caddytest.Run(t, withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusServiceUnavailable || len(got.Body) > 0 {
		t.Errorf("%d, %d bytes", got.Status, len(got.Body))
	}
}

// A session is in an answer of status 200. In another one it is nobody's, and no player sees it.
func TestAnAnswerThatIsNoneHasNoSession(t *testing.T) {
	for _, status := range []int{http.StatusCreated, http.StatusAccepted, http.StatusNonAuthoritativeInfo} {
		endpoint := caddytest.Rotate(t, 3600)
		old := caddytest.Serve(t, caddytest.Says(status, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+
			`<getSessionIdResponse xmlns="http://www.sonos.com/Services/1.1"><getSessionIdResult>marker-session</getSessionIdResult></getSessionIdResponse></s:Body></s:Envelope>`))
		s := caddytest.Run(t, withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
		authToken, key := s.UpgradeOf(t, "session_id")
		if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusBadGateway || strings.Contains(got.Body, "marker") {
			t.Errorf("%d: %+v", status, got)
		}
	}
}

func TestASessionThatBreaksOffIsABadGatewayForAllWhoWaitForIt(t *testing.T) {
	endpoint, release := caddytest.Rotate(t, 3600), make(chan struct{})
	old := caddytest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "part")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	s := caddytest.Run(t, withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusBadGateway {
				t.Errorf("%+v", got)
			}
		})
	}
	close(release)
	all.Wait()
}

// Whoever answers in the place of an old service that is down gets neither the player's token nor the old credentials.
func TestAnErrorOfTheOldServiceCanBeAnsweredByAnother(t *testing.T) {
	endpoint := caddytest.Rotate(t, 3600)
	backup := caddytest.Serve(t, caddytest.Says(http.StatusOK, "backup"))
	down := caddytest.Serve(t, caddytest.Teapot)
	s := caddytest.Run(t, withOld(endpoint, down, caddytest.VaultFile(t), "login")+"\nhandle_errors {\nreverse_proxy "+backup.URL+"\n}")
	authToken, key := s.UpgradeOf(t, "login")
	down.Close()
	if got := s.Browse(t, "getMetadata", authToken, key); got.Status != http.StatusOK || string(got.Body) != "backup" {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	for _, heard := range backup.Asked() {
		if heard.Text != "" || strings.Contains(fmt.Sprint(slices.Collect(maps.Values(heard.Header))), authToken) {
			t.Errorf("it heard %+v", heard)
		}
	}
}

// The old service's word of a moment ago was about another record.
func TestAHomeThatIsUpgradedAnewIsNotSignedOutByAnOldRefusal(t *testing.T) {
	step := stepClock(t)
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	s := caddytest.Run(t, withOld(endpoint, old.Server, caddytest.VaultFile(t), "session_id", "remember_rejected off"))
	authToken, key := s.UpgradeOf(t, "session_id")
	old.With(func() { old.Password = "another" })
	if got := s.Browse(t, "getMetadata", authToken, key); !strings.Contains(string(got.Body), "Client.AuthTokenExpired") {
		t.Fatalf("a refused password: %s", got.Body)
	}
	old.With(func() { old.Password = "12345" })
	authToken, key = s.UpgradeOf(t, "session_id")
	if got := s.Browse(t, "getMetadata", authToken, key); !strings.Contains(string(got.Body), "Server.ServiceUnavailable") {
		t.Errorf("a moment later: %s", got.Body)
	}
	step(time.Minute)
	checkServed(t, s.Browse(t, "getMetadata", authToken, key))
}

// A certificate or another token that has the beginning of a token of ours in it is none.
func TestABase64TextThatLooksLikeATokenIsForwarded(t *testing.T) {
	endpoint, old := caddytest.Rotate(t, 3600), caddytest.OldService(t)
	s := caddytest.Run(t, withOld(endpoint, old, caddytest.VaultFile(t), "login"))
	for _, account := range []string{
		"<deviceCert>MIIBIjANBgkqhkismv1" + strings.Repeat("G9w0BAQEFAAOCAQ8AMIIBCgKCAQEA", 4) + "</deviceCert>" + nativeLogin,
		"<loginToken><token>eyJhbGciOiJub25lIsmv1.eyJzdWIiOiJhIn0aaaaaaaaaaaaaaa.</token></loginToken>",
	} {
		if got := s.Do(t, s.Browsing(t, "getMetadata", account, "")); got.Status != http.StatusTeapot {
			t.Errorf("%s: %+v", account, got)
		}
	}
}

// It is no error of anybody's, and a call that is under way at the old service is none either.
func TestAPlayerThatLeavesWhileAnotherCallBeginsItsSessionIsNoError(t *testing.T) {
	endpoint, strict := caddytest.Rotate(t, 3600), caddytest.Strict(t, "session_id")
	begun, release := make(chan struct{}, 1), make(chan struct{})
	old := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("SOAPAction"), "getSessionId") {
			begun <- struct{}{}
			<-release
		}
		strict.Answer(w, r)
	})
	front := caddytest.Serve(t, func(http.ResponseWriter, *http.Request) {}) // knows who has come
	s := caddytest.Run(t, "forward_auth "+front.URL+" {\nuri /\n}\n"+withOld(endpoint, old, caddytest.VaultFile(t), "session_id"))
	authToken, key := s.UpgradeOf(t, "session_id")
	var all sync.WaitGroup
	all.Go(func() { checkServed(t, s.Browse(t, "getMetadata", authToken, key)) })
	<-begun
	front.Asked()
	ctx, leave := context.WithCancel(t.Context())
	all.Go(func() {
		_, _ = http.DefaultTransport.RoundTrip(s.Browsing(t, "getLastUpdate", loginToken(authToken, key), "").WithContext(ctx))
	})
	caddytest.Eventually(t, "the second call has come", func() bool { return len(front.Asked()) > 0 })
	leave()
	caddytest.Eventually(t, "it is noted", func() bool { return strings.Contains(s.Log(t), `"status":499`) })
	close(release)
	all.Wait()
	if log := s.Log(t); strings.Contains(log, `"level":"error"`) {
		t.Error(log)
	}
}

package player

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// How often a player asks whether its listener has signed in, and for how long, by Sonos's documentation.
const (
	PollEvery = 5 * time.Second
	PollFor   = 7 * time.Minute
)

// The outcomes of a sign-in, beside NotLinked and those of calls that fail.
const (
	SignedIn Outcome = "signed_in"
	NoLink   Outcome = "no_link"  // the service does not say where
	TooLate  Outcome = "too_late" // nobody signed in for as long as the player asked
	GaveUp   Outcome = "gave_up"  // it was ended early
	notYet           = "Client.NOT_LINKED_RETRY"
)

// Link is where an app has its listener sign in.
type Link struct {
	URL, Code string
	Show      bool // the code is shown

	deviceID string
}

// SignIn is a listener who signs in: an app asks where, and then polls.
type SignIn struct {
	Client *Client

	// Seed makes the home.
	Seed uint64

	// Every is the time between two polls, For how long there are any.
	Every, For time.Duration

	// Show is told where to sign in.
	Show func(Link)

	polls atomic.Int64
}

// SignInSummary is what became of it. It holds no token.
type SignInSummary struct {
	Outcome   Outcome `json:"outcome"`
	Reason    string  `json:"reason,omitempty"`
	Reference string  `json:"reference,omitempty"`
	Polls     int     `json:"polls"`
}

// Polls is how many were made so far.
func (s *SignIn) Polls() int { return int(s.polls.Load()) }

// Run plays it until it is over or ctx ends.
func (s *SignIn) Run(ctx context.Context) SignInSummary {
	account := Synthetic(smapi.Anonymous, 1)
	assignHomes(account, 1, s.Seed)
	link, a := s.link(ctx, account[0].HouseholdID)
	if link == nil {
		return s.summary(a)
	}
	s.Show(*link)
	for begun := time.Now(); ; {
		s.polls.Add(1)
		switch a := s.poll(ctx, account[0].HouseholdID, link); {
		case a.Outcome == Upgraded:
			return s.summary(Answer{Outcome: SignedIn})
		case a.Outcome == AnotherFault && a.Reason == notYet, a.Outcome == TryAgain, a.Outcome == NoAnswer && ctx.Err() == nil:
		case ctx.Err() == nil:
			return s.summary(a)
		}
		if time.Since(begun) >= s.For {
			return s.summary(Answer{Outcome: TooLate})
		}
		select {
		case <-ctx.Done():
			return s.summary(Answer{Outcome: GaveUp})
		case <-time.After(s.Every):
		}
	}
}

func (s *SignIn) summary(a Answer) SignInSummary {
	return SignInSummary{a.Outcome, a.Reason, a.Reference, s.Polls()}
}

// link asks where to sign in. Nil is nowhere, and why.
func (s *SignIn) link(ctx context.Context, home string) (*Link, Answer) {
	status, body, err := s.Client.call(ctx, smapi.GetAppLink, "<householdId>"+escaped(home)+"</householdId><hardware>iPhone17,1</hardware>"+
		"<osVersion>26.1</osVersion><sonosAppName>ICRU_iPhone17,1</sonosAppName><callbackPath>sonos-2://x-callback-url/addAccount</callbackPath>")
	if err != nil {
		return nil, Answer{Outcome: NoAnswer, Reason: why(err)}
	}
	if status != http.StatusOK {
		a := Read(status, body)
		if a.Outcome == AnotherFault {
			a.Outcome = NoLink
		}
		return nil, a
	}
	root, err := parse(body)
	if root == nil || err != nil {
		return nil, Answer{Outcome: NotSMAPI, Reason: "no XML"}
	}
	l, err := readLink(root)
	if err != nil {
		return nil, notAccepted(err)
	}
	return l, Answer{}
}

func (s *SignIn) poll(ctx context.Context, home string, l *Link) Answer {
	status, body, err := s.Client.call(ctx, smapi.GetDeviceAuthToken, "<householdId>"+escaped(home)+"</householdId><linkCode>"+
		escaped(l.Code)+"</linkCode><linkDeviceId>"+escaped(l.deviceID)+"</linkDeviceId><callbackPath>sonos-2://x-callback-url/addAccount</callbackPath>")
	if err != nil {
		return Answer{Outcome: NoAnswer, Reason: why(err)}
	}
	return Read(status, body)
}

// readLink reads the answer to getAppLink as strictly as an app may.
func readLink(root *node) (*Link, error) {
	at, err := root.content()
	if err != nil {
		return nil, err
	}
	const method = string(smapi.GetAppLink)
	if at.name != (xml.Name{Space: sonosNamespace, Local: method + "Response"}) {
		return nil, invalid("an answer to another method")
	}
	for _, inside := range [][]string{
		{method + "Result"},
		{"authorizeAccount", "createAccount?", "installAction?"},
	} {
		found, err := at.sequence(sonosNamespace, inside...)
		if err != nil {
			return nil, err
		}
		at = found[0]
	}
	found, err := at.sequence(sonosNamespace, "appUrl?", "appUrlStringId", "deviceLink", "failureStringId?", "failureUrl?", "failureUrlStringId?")
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(found[1].text) == "" {
		return nil, invalid("a blank appUrlStringId")
	}
	parts, err := found[2].sequence(sonosNamespace, "regUrl", "linkCode", "showLinkCode", "linkDeviceId?")
	if err != nil {
		return nil, err
	}
	l := &Link{URL: parts[0].text, Code: parts[1].text}
	if parts[3] != nil {
		l.deviceID = parts[3].text
	}
	page, err := url.Parse(l.URL)
	switch show := strings.TrimSpace(parts[2].text); {
	case err != nil || page.Scheme != "https" && page.Scheme != "http" || page.Host == "":
		return nil, invalid("a regUrl that is no web page")
	case strings.TrimSpace(l.Code) == "" || utf8.RuneCountInString(l.Code) > smapi.MaxLinkCode:
		return nil, fmt.Errorf("a linkCode that is blank or has more than %d characters", smapi.MaxLinkCode)
	case utf8.RuneCountInString(l.deviceID) > smapi.MaxLinkDeviceID:
		return nil, fmt.Errorf("a linkDeviceId of more than %d characters", smapi.MaxLinkDeviceID)
	case show != "true" && show != "1" && show != "false" && show != "0":
		return nil, invalid("a showLinkCode that is neither true nor false")
	default:
		l.Show = show == "true" || show == "1"
	}
	return l, nil
}

// call sends a call without an account.
func (c *Client) call(ctx context.Context, method smapi.Method, parameters string) (status int, body []byte, err error) {
	envelope := xmlDeclaration + `<s:Envelope xmlns:s="` + soapNamespace + `"><s:Header><credentials` + ofSonos + `>` +
		`<deviceId>00-00-00-00-00-00:0</deviceId><deviceProvider>Sonos</deviceProvider></credentials></s:Header>` +
		`<s:Body><` + string(method) + ofSonos + `>` + parameters + `</` + string(method) + `></s:Body></s:Envelope>`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, strings.NewReader(envelope))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", textXML)
	r.Header.Set("SOAPAction", `"`+sonosNamespace+`#`+string(method)+`"`)
	return c.ask(r)
}

func escaped(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // writes to memory, which cannot fail
	return b.String()
}

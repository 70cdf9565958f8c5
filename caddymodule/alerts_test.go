package caddymodule_test

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func accounts(exchange, result string) string {
	return fmt.Sprintf("caddy_smapi_upgrade_accounts{exchange=%q,result=%q}", exchange, result)
}

// What alerts ask for: a caller who repeats one account, or makes them up, moves nothing that good accounts are counted by.
func TestDistinctAccountsAreCountedByHowTheirLastExchangeEnded(t *testing.T) {
	var failed atomic.Int32
	judge := caddytest.Passwords(&failed)
	endpoint := caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.PostFormValue("username"), "broken") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if r.PostFormValue("grant_type") == "refresh_token" {
			caddytest.Says(http.StatusBadRequest, `{"error":"invalid_grant"}`)(w, r)
			return
		}
		judge(w, r)
	})
	o := caddytest.Operate(t, caddytest.Directive(endpoint, caddytest.OldService(t), "failed_logins off", "refresh_auth_tokens"))
	for i := range 30 {
		o.Post(t, caddytest.Tries(t, "ella", "wrong"+strconv.Itoa(i), "home"))
	}
	for i := range 5 {
		for home := range 2 {
			caddytest.CheckAnswer(t, o.Post(t, caddytest.Tries(t, "good"+strconv.Itoa(i), "right", "home"+strconv.Itoa(home))), "upgraded.xml")
		}
		o.Post(t, caddytest.Tries(t, "made-up"+strconv.Itoa(i), "wrong", "home"))
	}
	for range 3 {
		o.Post(t, caddytest.Tries(t, "broken", "right", "home"))
	}
	o.Call(t, "refreshAuthToken", "refresh-auth-token.xml")
	values := o.Scrape(t)
	for name, want := range map[string]float64{
		accounts("upgrade", "accepted"): 5,
		accounts("upgrade", "rejected"): 6,
		accounts("upgrade", "failed"):   1,
		accounts("refresh", "accepted"): 0,
		accounts("refresh", "rejected"): 1,
		accounts("refresh", "failed"):   0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func exchanging(kind string) string {
	return fmt.Sprintf("caddy_smapi_upgrade_handlers_exchanging{credentials=%q}", kind)
}

func TestWhichCredentialsAreExchangedIsKnownWithoutACall(t *testing.T) {
	const token = "exchange login_token {\nparam subject_token {smapi.token}\nparam subject_token_type urn:x\n}"
	for options, want := range map[string]map[string]float64{
		"":                                    {"login": 1, "session_id": 0, "login_token": 0, "anonymous": 0},
		token:                                 {"login": 0, "session_id": 0, "login_token": 1, "anonymous": 0},
		token + "\nexchange login":            {"login": 1, "session_id": 0, "login_token": 1, "anonymous": 0},
		"mode reauthorize":                    {"login": 0, "session_id": 0, "login_token": 0, "anonymous": 0},
		"mode observe\n" + token:              {"login": 0, "session_id": 0, "login_token": 0, "anonymous": 0},
		"households 0%\nexpire_session_ids\n": {"login": 1, "session_id": 0, "login_token": 0, "anonymous": 0},
	} {
		o := caddytest.Operate(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t), options))
		values := o.Scrape(t)
		for kind, n := range want {
			if got, ok := values[exchanging(kind)]; !ok || got != n {
				t.Errorf("%q: %s is %v, want %v", options, exchanging(kind), got, n)
			}
		}
	}
}

func TestOneAccountCanBeFollowedThroughTheLog(t *testing.T) {
	s := caddytest.Run(t, caddytest.Directive(caddytest.Serve(t, caddytest.IssuesTokens), caddytest.OldService(t)))
	digest := regexp.MustCompile(`"account":"([0-9a-f]{16})"`)
	s.Post(t, caddytest.Tries(t, "ella", "right", "first-home"))
	s.Post(t, caddytest.Tries(t, " ELLA ", "right", "second-home"))
	s.Post(t, caddytest.Tries(t, "django", "right", "first-home"))
	log := s.Log(t)
	found := digest.FindAllStringSubmatch(log, -1)
	if len(found) != 3 || found[0][1] != found[1][1] || found[0][1] == found[2][1] {
		t.Errorf("the digests are %v", found)
	}
	if bytes.Contains(bytes.ToLower([]byte(log)), []byte("ella")) || strings.Contains(log, "django") {
		t.Error("the log names an account")
	}
}

package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smapi-tools/caddy-smapi-upgrade/internal/caddytest"
)

func oldAccounts(result string) string {
	return fmt.Sprintf("caddy_smapi_upgrade_old_accounts{result=%q}", result)
}

// judging is an old service of this kind that says of accounts what their names begin with.
func judging(t testing.TB, kind string) *caddytest.Server {
	name := regexp.MustCompile(`<username>([a-z]+)`)
	return caddytest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		found := name.FindSubmatch(body)
		switch {
		case kind == "session_id" && !strings.Contains(r.Header.Get("SOAPAction"), "#getSessionId"):
			_, _ = io.WriteString(w, "served")
		case found == nil:
			w.WriteHeader(http.StatusBadRequest)
		case string(found[1]) == "refused":
			caddytest.Says(500, caddytest.Fault("Client.LoginInvalid"))(w, r)
		case string(found[1]) == "disabled":
			caddytest.Says(500, caddytest.Fault("Client.LoginDisabled"))(w, r)
		case string(found[1]) == "broken":
			caddytest.Says(500, caddytest.Fault("Server.ServiceUnknownError"))(w, r)
		case string(found[1]) == "away":
			w.WriteHeader(http.StatusServiceUnavailable)
		case string(found[1]) == "picky":
			caddytest.Says(500, caddytest.Fault("Client.ItemNotFound"))(w, r)
		default:
			_, _ = io.WriteString(w, "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body><getSessionIdResponse xmlns='http://www.sonos.com/Services/1.1'>"+
				"<getSessionIdResult>"+string(found[0][len("<username>"):])+"</getSessionIdResult></getSessionIdResponse></e:Body></e:Envelope>")
		}
	})
}

func TestDistinctAccountsAreCountedByWhatTheOldServiceSaysOfThem(t *testing.T) {
	for kind, want := range map[string]map[string]float64{
		"login":      {"accepted": 4, "rejected": 3, "failed": 3},
		"session_id": {"accepted": 4, "rejected": 4, "failed": 3}, // to getSessionId a fault of the caller's is one of the account
	} {
		t.Run(kind, func(t *testing.T) {
			o := caddytest.Operate(t, withOld(caddytest.Rotate(t, 3600), judging(t, kind), caddytest.VaultFile(t), kind))
			for name, n := range map[string]int{"good": 4, "refused": 2, "disabled": 1, "broken": 2, "away": 1, "picky": 1} {
				for i := range n {
					authToken, key := caddytest.TokensOf(o.Post(t, caddytest.Tries(t, fmt.Sprint(name, i), "12345", "Sonos_home")))
					for range 3 {
						o.Browse(t, "getLastUpdate", authToken, key)
					}
				}
			}
			for range 30 { // which anybody can send
				o.Browse(t, "getLastUpdate", "smv1."+strings.Repeat("A", 100), "made-up")
			}
			values := o.Scrape(t)
			for result, n := range want {
				if got, ok := values[oldAccounts(result)]; !ok || got != n {
					t.Errorf("%s is %v, want %v", oldAccounts(result), got, n)
				}
			}
		})
	}
}

func TestACallThatFailsHereIsCountedApartFromWhatTheOldServiceRefuses(t *testing.T) {
	step := stepClock(t)
	endpoint := caddytest.Rotate(t, 3600)
	o := caddytest.Operate(t, withOld(endpoint, judging(t, "login"), caddytest.VaultFile(t), "login {\ngrace 1m\n}"))
	refused, _ := caddytest.TokensOf(o.Post(t, caddytest.Tries(t, "refused", "12345", "Sonos_home")))
	good, key := caddytest.TokensOf(o.Post(t, caddytest.Tries(t, "good", "12345", "Sonos_home")))
	before := o.Scrape(t)
	caddytest.CheckAnswer(t, o.Browse(t, "getLastUpdate", refused, ""), "auth-token-expired.xml")
	endpoint.Close()
	step(2 * time.Hour) // the token has run out, and cannot be refreshed
	caddytest.CheckAnswer(t, o.Browse(t, "getLastUpdate", good, key), "service-unavailable.xml")
	after := o.Scrape(t)
	for name, want := range map[string]float64{
		requests("other", "expired", "login_token"):     1,
		requests("other", "unavailable", "login_token"): 1,
		requests("other", "translated", "login_token"):  0,
		oldAccounts("rejected"):                         1,
		oldAccounts("failed"):                           0,
		oldAccounts("accepted"):                         0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s has grown by %v, want %v", name, got, want)
		}
	}
}

func TestACallOfAnotherHomeThanItsTokensIsNotedAndServed(t *testing.T) {
	old := caddytest.Strict(t, "login")
	o := caddytest.Operate(t, withOld(caddytest.Rotate(t, 3600), old.Server, caddytest.VaultFile(t), "login"))
	authToken, key := o.UpgradeOf(t, "login")
	before := o.Scrape(t)
	for _, home := range []string{"Sonos_abc123", "Sonos_abc123_1a2b3c4d", "Sonos_abc123_1", "Sonos_another"} {
		account := "<loginToken><token>" + authToken + "</token><key>" + key + "</key><householdId>" + home + "</householdId></loginToken>"
		checkServed(t, o.Do(t, o.Browsing(t, "getMetadata", account, "")))
	}
	checkServed(t, o.Do(t, o.Browsing(t, "getMetadata", "", authToken))) // which names none
	after := o.Scrape(t)
	for differs, want := range map[string]float64{"suffix": 2, "home": 1} {
		name := fmt.Sprintf("caddy_smapi_upgrade_old_household_differs_total{differs=%q}", differs)
		if got, ok := after[name]; !ok || got-before[name] != want {
			t.Errorf("%s has grown by %v, want %v", name, got-before[name], want)
		}
	}
	log := o.Log(t)
	upgraded := regexp.MustCompile(`"outcome":"upgraded".*"household":"([0-9a-f]+)"`).FindStringSubmatch(log)
	if upgraded == nil || strings.Count(log, `"household_of_token":"`+upgraded[1]+`","differs":"`) != 3 || strings.Count(log, `"differs":"home"`) != 1 {
		t.Errorf("the log does not tell: %s", log)
	}
	if strings.Contains(log, "Sonos_") {
		t.Error("the log names a home")
	}
}

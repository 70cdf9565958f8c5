package caddytest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Answer is what a player gets.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Reference is what an answer of ours can be found in the log by.
var Reference = regexp.MustCompile(`reference [A-Z2-7]{8}`)

// CheckAnswer compares an answer of ours with a recorded one, whatever the reference.
func CheckAnswer(t testing.TB, got Answer, recorded string) {
	t.Helper()
	want := string(bytes.TrimSuffix(File(t, "answers", recorded), []byte("\n")))
	if body := Reference.ReplaceAllString(got.Body, "reference REFERENC"); body != want {
		t.Errorf("the answer is\n%s\nwant\n%s", body, want)
	}
	status := http.StatusOK
	if strings.Contains(want, "Fault>") {
		status = http.StatusInternalServerError
	}
	if got.Status != status {
		t.Errorf("the status is %d, want %d", got.Status, status)
	}
	CheckHeader(t, got)
}

// CheckHeader tells whether an answer is marked as ours are.
func CheckHeader(t testing.TB, got Answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "text/xml; charset=utf-8", "Cache-Control": "no-store", "Content-Encoding": "",
		"Content-Length": fmt.Sprint(len(got.Body)),
	} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
}

// UpgradeRequests are the upgrade calls of what was each kind of account.
var UpgradeRequests = map[string]string{
	"session_id": "upgrade.xml", "login": "upgrade.xml", "login_token": "login-token.xml", "anonymous": "anonymous.xml",
}

// Everyday is a call of an account by a method, as a format.
const Everyday = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><credentials xmlns="http://www.sonos.com/Services/1.1">` +
	`<deviceId>00-0E-58-5B-06-D6:8</deviceId><deviceProvider>Sonos</deviceProvider>%s</credentials></s:Header><s:Body>` +
	`<%s xmlns="http://www.sonos.com/Services/1.1"><id>a &amp; b</id></%[2]s></s:Body></s:Envelope>`

// Eventually asks until what it tells is so.
func Eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// DeviceLink is where to sign in, as an answer says it.
type DeviceLink struct {
	URL      string `xml:"regUrl"`
	Code     string `xml:"linkCode"`
	Show     bool   `xml:"showLinkCode"`
	DeviceID string `xml:"linkDeviceId"`
}

// Account is the upgrade call of one account.
func Account(t testing.TB, name string) []byte {
	return bytes.Replace(File(t, "requests", "upgrade.xml"), []byte("testuser"), []byte(name), 1)
}

// Player has connections of its own, as players have.
func Player(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 10000, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// Ask sends the call of a player.
func Ask(t testing.TB, c *http.Client, s *Site, body []byte) (Answer, error) {
	return Fetch(c, s.Request(t, body))
}

// Fetch returns the answer to a request.
func Fetch(c *http.Client, r *http.Request) (Answer, error) {
	response, err := c.Do(r)
	if err != nil {
		return Answer{}, err
	}
	return Read(response)
}

// Read reads an answer to its end.
func Read(response *http.Response) (Answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Answer{response.StatusCode, response.Header, string(body)}, err
}

// Told is what became of a call, as its player sees it.
func Told(t testing.TB, a Answer) string {
	switch {
	case strings.Contains(a.Body, "Server.ServiceUnavailable"):
		return "unavailable"
	case a.Status == http.StatusOK && strings.Contains(a.Body, "<authToken>new-token<"):
		return "upgraded"
	case a.Status == http.StatusOK && strings.Contains(a.Body, "<authToken></authToken>"):
		return "blank"
	}
	t.Errorf("the answer is %+v", a)
	return "?"
}

// Wave sends the calls of so many accounts at once, and returns what became of them in the order of the answers.
func Wave(t testing.TB, s *Site, accounts int) (became []string) {
	t.Helper()
	c := Player(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range accounts {
		all.Go(func() {
			a, err := Ask(t, c, s, Account(t, "player"+strconv.Itoa(i)))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			became = append(became, Told(t, a))
		})
	}
	all.Wait()
	return became
}

// From is a client in a loopback network of its own.
func From(t testing.TB, ip string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: Dialer(ip).DialContext, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// Dialer connects from an address.
func Dialer(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
}

// Tries is the upgrade call of an account with a password in a home.
func Tries(t testing.TB, name, password, home string) []byte {
	t.Helper()
	sample := string(File(t, "requests", "upgrade.xml"))
	return []byte(strings.NewReplacer("testuser", name, "12345", password, "Sonos_abc123", home).Replace(sample))
}

// TokensOf are the pair in an answer, blank where there is none.
func TokensOf(a Answer) (authToken, privateKey string) {
	decoder := xml.NewDecoder(strings.NewReader(a.Body))
	for {
		part, err := decoder.Token()
		if err != nil {
			return authToken, privateKey
		}
		if start, ok := part.(xml.StartElement); ok {
			switch start.Name.Local {
			case "authToken":
				_ = decoder.DecodeElement(&authToken, &start)
			case "privateKey":
				_ = decoder.DecodeElement(&privateKey, &start)
			}
		}
	}
}

// RefreshOf is the refreshAuthToken of a home with a pair.
func RefreshOf(t testing.TB, s *Site, authToken, privateKey string) *http.Request {
	t.Helper()
	body := strings.NewReplacer("old-token", authToken, "old-key", privateKey).Replace(string(File(t, "requests", "refresh-auth-token.xml")))
	r := s.Request(t, []byte(body))
	r.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#refreshAuthToken"`)
	return r
}

// Pair is what a player reads from an answer. It refuses what Sonos's schema does not have.
func Pair(t testing.TB, body string) (authToken, privateKey string) {
	t.Helper()
	var envelope struct {
		Result struct {
			Parts []struct {
				XMLName xml.Name
				Text    string `xml:",chardata"`
			} `xml:",any"`
		} `xml:"Body>getDeviceAuthTokenResponse>getDeviceAuthTokenResult"`
	}
	if err := xml.Unmarshal([]byte(body), &envelope); err != nil {
		t.Fatal(err)
	}
	parts := envelope.Result.Parts
	const sonos = "http://www.sonos.com/Services/1.1"
	if len(parts) != 2 || parts[0].XMLName != (xml.Name{Space: sonos, Local: "authToken"}) ||
		parts[1].XMLName != (xml.Name{Space: sonos, Local: "privateKey"}) {
		t.Fatalf("the answer is not authToken and privateKey: %s", body)
	}
	return parts[0].Text, parts[1].Text
}

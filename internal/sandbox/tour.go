package sandbox

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// upgrade plays a player that is upgraded, and a listener who signs in, step by step.
func (t *tourist) upgrade(legacyURL, caddyURL string) {
	t.step("The old service alone: it does not know the upgrade call", legacyURL,
		"getDeviceAuthToken", login("testuser", "12345"), household, 500, `faultcode`)
	t.step("The same call through Caddy: the account is upgraded", caddyURL,
		"getDeviceAuthToken", login("testuser", "12345"), household, 200, pairOfTokens)
	t.step("A wrong password: the Sonos app asks the listener to sign in again", caddyURL,
		"getDeviceAuthToken", login("testuser", "wrong"), household, 200, `<authToken></authToken><privateKey></privateKey>`)
	link := t.step("So the app asks where, which the old service could not say", caddyURL,
		"getAppLink", "", household, 200, linkOfListener)
	poll := household
	if link != nil {
		poll += "<linkCode>" + link[2] + "</linkCode><linkDeviceId>" + link[3] + "</linkDeviceId>"
	}
	t.step("And the player asks whether the listener has signed in: not yet", caddyURL,
		"getDeviceAuthToken", "", poll, 500, `Client\.NOT_LINKED_RETRY`)
	if link != nil {
		t.page("The listener signs in on the OAuth server's page", html.UnescapeString(link[1]), "testuser", "12345")
	}
	time.Sleep(1100 * time.Millisecond) // the interval of this server
	t.step("The next time there are tokens", caddyURL, "getDeviceAuthToken", "", poll, 200, pairOfTokens)
	t.step("A linkCode that is not Caddy's: forwarded, for a service that signs listeners in by itself", caddyURL,
		"getDeviceAuthToken", "", household+"<linkCode>ABC-123</linkCode>", 500, `Client\.NOT_LINKED_RETRY`)
	session := t.step("Other calls: forwarded, here for a session", caddyURL,
		"getSessionId", "", "<username>testuser</username><password>12345</password>", 200, `<getSessionIdResult>(\w+)</getSessionIdResult>`)
	sessionID := ""
	if session != nil {
		sessionID = session[1]
	}
	t.step("And with it, for something to play", caddyURL,
		"getMetadata", "<sessionId>"+sessionID+"</sessionId>", root, 200, `New releases`)
}

// browse plays an upgraded home, in front of an old service that knows nothing of tokens.
func (t *tourist) browse(legacyURL, caddyURL string) {
	token := ""
	if pair := t.step("An account is upgraded: its real tokens stay here, sealed", caddyURL,
		"getDeviceAuthToken", login("ella", "A-Tisket & A-Tasket <1938>"), household, 200, ourPair); pair != nil {
		token = "<loginToken><token>" + pair[1] + "</token><key>" + pair[2] + "</key>" + household + "</loginToken>"
	}
	t.step("The old service does not know the token", legacyURL, "getMetadata", token, root, 500, `Client\.SessionIdInvalid`)
	t.step("Through Caddy it is asked with a session of its own, and answers", caddyURL, "getMetadata", token, root, 200, `New releases`)
	t.step("When the token has run out the player asks for a new one, and holds the same for ever", caddyURL,
		"refreshAuthToken", token, "", 200, ourPair)
}

const (
	root    = "<id>root</id><index>0</index><count>10</count>"
	ourPair = `<authToken>(smv1[^<]+)</authToken><privateKey>(smv1[^<]+)</privateKey>`

	pairOfTokens   = `<authToken>[^<]+</authToken><privateKey>[^<]+</privateKey>`
	linkOfListener = `<regUrl>([^<]+)</regUrl><linkCode>([^<]+)</linkCode><showLinkCode>true</showLinkCode><linkDeviceId>([^<]+)</linkDeviceId>`
)

// tourist counts steps, and those that were not answered as they should be.
type tourist struct{ steps, failed int }

func (t *tourist) title(title string) {
	t.steps++
	fmt.Printf("\n%s\n", paint(bold, fmt.Sprintf("%d. %s", t.steps, title)))
}

// step makes a call, and returns what it finds in its answer, nil where that is not as it should be.
func (t *tourist) step(title, url, action, header, body string, status int, want string) []string {
	t.title(title)
	fmt.Printf("   %s %s\n", paint(cyan, "→ "+action), inShort(header+body))
	got, answer, err := call(url, action, header, body)
	found := regexp.MustCompile(want).FindStringSubmatch(answer)
	switch {
	case err != nil:
		t.failed++
		fmt.Printf("   %s %v\n", paint(red, "✗ no answer:"), err)
	case got != status || found == nil:
		t.failed++
		fmt.Printf("   %s %d %s\n", paint(red, "✗ not as it should be:"), got, inShort(answer))
	default:
		fmt.Printf("   %s %s\n", paint(green, fmt.Sprintf("← %d", got)), inShort(answer))
	}
	return found
}

// page fills in the page, as a listener does in a browser.
func (t *tourist) page(title, address, username, password string) {
	t.title(title)
	fmt.Printf("   %s %s\n", paint(cyan, "→ "+address), "username="+strconv.Quote(username))
	where, err := url.Parse(address)
	var text []byte
	if err == nil {
		form := url.Values{"user_code": {where.Query().Get("user_code")}, "username": {username}, "password": {password}}
		var response *http.Response
		if response, err = http.PostForm(address, form); err == nil {
			text, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
	}
	if err != nil || !bytes.Contains(text, []byte("You are signed in")) {
		t.failed++
		fmt.Printf("   %s %v\n", paint(red, "✗ not as it should be:"), err)
		return
	}
	fmt.Printf("   %s You are signed in. Go back to the Sonos app.\n", paint(green, "←"))
}

// newLink returns a page for whoever wants to try it, blank where there is none.
func newLink(caddyURL string) string {
	_, answer, err := call(caddyURL, "getAppLink", "", household)
	found := regexp.MustCompile(linkOfListener).FindStringSubmatch(answer)
	if err != nil || found == nil {
		return ""
	}
	return html.UnescapeString(found[1])
}

const household = "<householdId>Sonos_abc123</householdId>"

func login(username, password string) string {
	return "<login><username>" + escape(username) + "</username><password>" + escape(password) + "</password></login>"
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // writes to memory, which cannot fail
	return b.String()
}

// call makes one SMAPI call as a player does.
func call(url, action, credentials, body string) (status int, answer string, err error) {
	envelope := `<?xml version="1.0" encoding="utf-8"?>` +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>` +
		`<credentials xmlns="http://www.sonos.com/Services/1.1"><deviceId>00-0E-58-5B-06-D6:8</deviceId>` +
		`<deviceProvider>Sonos</deviceProvider>` + credentials + `</credentials></s:Header><s:Body>` +
		`<` + action + ` xmlns="http://www.sonos.com/Services/1.1">` + body + `</` + action + `>` +
		`</s:Body></s:Envelope>`
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(envelope))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "text/xml; charset=utf-8")
	request.Header.Set("SOAPAction", `"http://www.sonos.com/Services/1.1#`+action+`"`)
	response, err := http.DefaultClient.Do(request)
	if errors.Is(err, io.EOF) && request.GetBody != nil { // a server that is just being reloaded has closed the connection
		request.Body, _ = request.GetBody()
		response, err = http.DefaultClient.Do(request)
	}
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// inShort leaves of XML what a reader looks for: the leaves, with long texts cut.
func inShort(text string) string {
	var out []string
	for _, leaf := range regexp.MustCompile(`<(?:\w+:)?(\w+)[^<>]*>([^<>]*)</`).FindAllStringSubmatch(text, -1) {
		value := leaf[2]
		if len(value) > 48 {
			value = value[:45] + "..."
		}
		out = append(out, fmt.Sprintf("%s=%q", leaf[1], value))
	}
	if len(out) == 0 {
		return string(bytes.TrimSpace([]byte(text)))
	}
	return strings.Join(out, " ")
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
	cyan  = "36"
)

var terminal = func() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}()

func paint(color, text string) string {
	if !terminal {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
)

// tour plays a player, step by step, and returns how many steps were not answered as they should be.
func tour(legacyURL, caddyURL string) (failed int) {
	var sessionID string
	for i, step := range []struct {
		title, url, action, header, body string
		status                           int
		want                             *regexp.Regexp
	}{
		{
			"The old service alone: it does not know the upgrade call", legacyURL,
			"getDeviceAuthToken", login("testuser", "12345"), household, 500, regexp.MustCompile(`faultcode`),
		},
		{
			"The same call through Caddy: the account is upgraded", caddyURL,
			"getDeviceAuthToken", login("testuser", "12345"), household, 200,
			regexp.MustCompile(`<authToken>[^<]+</authToken><privateKey>[^<]+</privateKey>`),
		},
		{
			"A wrong password: the Sonos app asks the listener to sign in again", caddyURL,
			"getDeviceAuthToken", login("testuser", "wrong"), household, 200,
			regexp.MustCompile(`<authToken></authToken><privateKey></privateKey>`),
		},
		{
			"With a linkCode it is a listener who signs in: forwarded", caddyURL,
			"getDeviceAuthToken", "", household + "<linkCode>ABC-123</linkCode>", 500,
			regexp.MustCompile(`Client\.NOT_LINKED_RETRY`),
		},
		{
			"Other calls: forwarded, here for a session", caddyURL,
			"getSessionId", "", "<username>testuser</username><password>12345</password>", 200,
			regexp.MustCompile(`<getSessionIdResult>(\w+)</getSessionIdResult>`),
		},
		{
			"And with it, for something to play", caddyURL,
			"getMetadata", "<sessionId>$sessionID</sessionId>", "<id>root</id><index>0</index><count>10</count>", 200,
			regexp.MustCompile(`New releases`),
		},
	} {
		header := strings.ReplaceAll(step.header, "$sessionID", sessionID)
		fmt.Printf("\n%s\n", paint(bold, fmt.Sprintf("%d. %s", i+1, step.title)))
		fmt.Printf("   %s %s\n", paint(cyan, "→ "+step.action), inShort(header+step.body))
		status, answer, err := call(step.url, step.action, header, step.body)
		found := step.want.FindStringSubmatch(answer)
		switch {
		case err != nil:
			failed++
			fmt.Printf("   %s %v\n", paint(red, "✗ no answer:"), err)
		case status != step.status || found == nil:
			failed++
			fmt.Printf("   %s %d %s\n", paint(red, "✗ not as it should be:"), status, inShort(answer))
		default:
			fmt.Printf("   %s %s\n", paint(green, fmt.Sprintf("← %d", status)), inShort(answer))
		}
		if len(found) > 1 {
			sessionID = found[1]
		}
	}
	return failed
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

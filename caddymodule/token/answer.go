package token

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"
)

// Answer is what a token endpoint answered, or why it did not. It can be written down, as JSON for example, and judged
// later; its Fields are secrets then.
type Answer struct {
	// Status is the HTTP status, 0 where there was no answer.
	Status int `json:"status,omitempty"`

	// Error is the OAuth error as it came, which can be anything: it is not for people. Blank where there is none.
	Error string `json:"error,omitempty"`

	// Suberror says more of some errors of Entra's, such as consent_required of an invalid_grant.
	Suberror string `json:"suberror,omitempty"`

	// Readable tells that the body was JSON, Object that it was a JSON object, Empty that there was none, Form that it
	// was a form with an access_token.
	Readable bool `json:"readable,omitempty"`
	Object   bool `json:"object,omitempty"`
	Empty    bool `json:"empty,omitempty"`
	Form     bool `json:"form,omitempty"`

	// RetryAfter tells that there was such a header.
	RetryAfter bool `json:"retry_after,omitempty"`

	// Fields are those of Config.Fields that the answer has as a text, nil where it has none. They are secrets.
	Fields map[string]string `json:"fields,omitempty"`

	// Life is how long the access token is good (expires_in), 0 where the answer does not say.
	Life time.Duration `json:"life,omitempty"`

	// Failure says why there is no answer that could be judged, nil if there is one.
	Failure *Failure `json:"failure,omitempty"`

	// HoldBack is for how long the endpoint asks to hold back, at most 5 minutes, 0 where it does not ask.
	HoldBack time.Duration `json:"hold_back,omitempty"`

	// Took is the time from the request to the answer, 0 where nothing was sent.
	Took time.Duration `json:"took,omitempty"`
}

// Failure says in fixed texts why there is no answer, and what the operator can do about it.
type Failure struct {
	Class Class  `json:"class"`
	Cause string `json:"cause"`
	Fix   string `json:"fix,omitempty"`
}

func broken(status int, class Class, cause, fix string) Answer {
	return Answer{Status: status, Failure: &Failure{class, cause, fix}}
}

// newAnswer keeps of an answer what it is judged by and the wanted fields.
func newAnswer(response *http.Response, content []byte, wanted []string) Answer {
	a := Answer{Status: response.StatusCode, HoldBack: holdBack(response, time.Now())}
	members, readable := readJSON(content)
	a.Error, a.Suberror = textOf(members["error"]), textOf(members["suberror"])
	a.Readable, a.Object, a.Empty = readable, members != nil, len(bytes.TrimSpace(content)) == 0
	a.RetryAfter = response.Header.Get("Retry-After") != ""
	if !readable {
		form, err := url.ParseQuery(string(content))
		a.Form = err == nil && form.Has("access_token")
	}
	a.Life = lifeOf(members["expires_in"])
	for _, name := range wanted {
		if text := textOf(members[name]); text != "" {
			if a.Fields == nil {
				a.Fields = make(map[string]string, len(wanted))
			}
			a.Fields[name] = text
		}
	}
	return a
}

// maxLife bounds how long an access token may be said to be good.
const maxLife = 10 * 365 * 24 * time.Hour

// lifeOf reads expires_in, which comes as a number, with or without a fraction, and as a text of one.
func lifeOf(member json.RawMessage) time.Duration {
	text := string(member)
	if quoted := textOf(member); quoted != "" {
		text = quoted
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second))
}

// readJSON reads the members of an object. Other JSON is readable but has no members.
func readJSON(content []byte) (members map[string]json.RawMessage, readable bool) {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if json.Unmarshal(content, &members) == nil {
		return members, true
	}
	return nil, json.Valid(content)
}

// textOf is the text of a member, blank where it is missing or no text.
func textOf(member json.RawMessage) (text string) {
	if len(member) == 0 || member[0] != '"' {
		return ""
	}
	if plain := member[1 : len(member)-1]; !bytes.ContainsFunc(plain, func(r rune) bool { return r == '\\' || r >= utf8.RuneSelf }) {
		return string(plain)
	}
	_ = json.Unmarshal(member, &text) // it is valid
	return text
}

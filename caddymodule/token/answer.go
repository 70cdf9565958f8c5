package token

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// Answer is what a token endpoint answered, or why it did not. It can be written down, as JSON for example, and judged
// later; its Fields are secrets then.
type Answer struct {
	// Status is the HTTP status, 0 where there was no answer.
	Status int `json:"status,omitempty"`

	// Error is the OAuth error as it came, which can be anything: it is not for people. Blank where there is none.
	Error string `json:"error,omitempty"`

	// Readable tells that the body was JSON.
	Readable bool `json:"readable,omitempty"`

	// Fields are those of Config.Fields that the answer has as a text, nil where it has none. They are secrets.
	Fields map[string]string `json:"fields,omitempty"`

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
	a.Error, a.Readable = textOf(members["error"]), readable
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
	if len(member) > 0 && member[0] == '"' {
		_ = json.Unmarshal(member, &text) // it is valid
	}
	return text
}

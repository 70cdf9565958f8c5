package token

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
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

	// Readable is true where the body was JSON, Object where it was a JSON object, Empty where there was none, Form where it
	// was a form with an access_token.
	Readable bool `json:"readable,omitempty"`
	Object   bool `json:"object,omitempty"`
	Empty    bool `json:"empty,omitempty"`
	Form     bool `json:"form,omitempty"`

	// RetryAfter is true where there was such a header.
	RetryAfter bool `json:"retry_after,omitempty"`

	// Fields are those of Config.Fields that the answer has as a text, nil where it has none. They are secrets.
	Fields Fields `json:"fields,omitempty"`

	// Life is how long the access token is good (expires_in), 0 where the answer does not say.
	Life time.Duration `json:"life,omitempty"`

	// Failure says why there is no answer that could be judged, nil if there is one.
	Failure *Failure `json:"failure,omitempty"`

	// HoldBack is for how long the endpoint asks to hold back, at most 5 minutes, 0 where it does not ask.
	HoldBack time.Duration `json:"hold_back,omitempty"`

	// Took is the time from the request to the answer, 0 where nothing was sent.
	Took time.Duration `json:"took,omitempty"`
}

// Fields are members of an answer that are texts, each name once. They are secrets.
type Fields []Field

// Field is a member of an answer.
type Field struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Get returns a text by its name, blank where there is none.
func (f Fields) Get(name string) string {
	for i := range f {
		if f[i].Name == name {
			return f[i].Text
		}
	}
	return ""
}

// with returns the fields with a text in the place of the one of that name.
func (f Fields) with(name, text string) Fields {
	f = slices.DeleteFunc(f, func(earlier Field) bool { return earlier.Name == name })
	if text == "" {
		return f
	}
	return append(f, Field{name, text})
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
	a := Answer{Status: response.StatusCode, HoldBack: holdBack(response, "", time.Now)}
	a.RetryAfter = len(response.Header["Retry-After"]) > 0
	a.Empty = len(bytes.TrimSpace(content)) == 0
	content = bytes.TrimPrefix(content, byteOrderMark)
	if a.Readable = json.Valid(content); !a.Readable {
		form, err := url.ParseQuery(string(content))
		a.Form = err == nil && form.Has("access_token")
		return a
	}
	members, found := bytes.CutPrefix(bytes.TrimLeft(content, jsonBlank), []byte("{"))
	if a.Object = found; found {
		a.take(members, wanted)
		a.HoldBack = holdBack(response, a.Error, time.Now)
	}
	return a
}

// take takes from the members of an object what is kept of them. Of members of one name the last one counts. They are
// read here rather than by json.Unmarshal, which takes longer for it than all else that an answer needs.
func (a *Answer) take(members []byte, wanted []string) {
	fields := make(Fields, 0, len(wanted))
	for {
		var name, value []byte
		if name, members = cutValue(members); name == nil {
			break
		}
		value, members = cutValue(members)
		name = rawText(name)
		switch string(name) {
		case "error":
			a.Error = textOf(value)
		case "suberror":
			a.Suberror = textOf(value)
		case "expires_in":
			a.Life = lifeOf(value)
		}
		for _, field := range wanted {
			if string(name) == field {
				fields = fields.with(field, textOf(value))
			}
		}
	}
	if len(fields) > 0 {
		a.Fields = fields
	}
}

// maxLife bounds how long an access token may be said to be good.
const maxLife = 10 * 365 * 24 * time.Hour

// lifeOf reads expires_in, which comes as a number, with or without a fraction, and as a text of one.
func lifeOf(value []byte) time.Duration {
	text := string(value)
	if quoted := textOf(value); quoted != "" {
		text = quoted
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second))
}

var byteOrderMark = []byte("\xef\xbb\xbf")

const jsonBlank = " \t\r\n"

// cutValue cuts the next name or value off the inside of an object, which has to be valid JSON: nil at its end.
func cutValue(members []byte) (value, rest []byte) {
	members = bytes.TrimLeft(members, jsonBlank+",:")
	for depth, i := 0, 0; i < len(members); i++ {
		switch members[i] {
		case '"':
			i = endOfText(members, i)
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth < 0 {
			break
		}
		if depth == 0 {
			switch members[i+1] { // there is a }
			case ' ', '\t', '\r', '\n', ',', ':', '}':
				return members[:i+1], members[i+1:]
			}
		}
	}
	return nil, nil
}

// endOfText is where the text ends that begins at i.
func endOfText(members []byte, i int) int {
	inside := members[i+1:]
	if n := bytes.IndexByte(inside, '"'); bytes.IndexByte(inside[:n], '\\') < 0 {
		return i + 1 + n
	}
	for i++; members[i] != '"'; i++ {
		if members[i] == '\\' {
			i++
		}
	}
	return i
}

// textOf is the text of a value, blank where it is none.
func textOf(value []byte) string { return string(rawText(value)) }

// rawText is textOf, and shares the value's bytes where it can.
func rawText(value []byte) []byte {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	if inside := value[1 : len(value)-1]; bytes.IndexByte(inside, '\\') < 0 && utf8.Valid(inside) {
		return inside
	}
	var text string
	_ = json.Unmarshal(value, &text) // it is valid
	return []byte(text)
}

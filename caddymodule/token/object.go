package token

import (
	"bytes"
	"encoding/json"
)

// object is the text of a JSON object, which is known to be valid. It is kept as it came, because of the
// many fields of a token response two or three are looked at, and results are kept for a while.
type object []byte

// readJSON reads an object. Other JSON is readable but has no fields.
func readJSON(body []byte) (o object, readable bool) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	if !json.Valid(body) {
		return nil, false
	}
	if body[0] != '{' {
		return nil, true
	}
	return body, true
}

// small returns the result without the room that its answer was read into, to be kept for a while.
func (r Result) small() Result {
	if cap(r.object) > 2*len(r.object)+1024 {
		r.object = bytes.Clone(r.object)
	}
	return r
}

// text returns the text of a member, blank where it is missing or no text. Of members with the same name it
// is the last, as everywhere.
func (o object) text(name string) (found string) {
	var key []byte
	depth := 0
	for i := 0; i < len(o); i++ {
		switch o[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 1 {
				key = nil
			}
		case '"':
			end := i + 1
			for ; o[end] != '"'; end++ {
				if o[end] == '\\' {
					end++
				}
			}
			quoted := o[i : end+1]
			i = end
			switch {
			case depth != 1:
			case key == nil:
				if key = quoted; names(key, name) {
					found = "" // the last counts, even if it is no text
				}
			case names(key, name):
				found = unquote(quoted)
			}
		}
	}
	return found
}

func names(quoted []byte, name string) bool {
	if plain(quoted) {
		return string(quoted[1:len(quoted)-1]) == name
	}
	return unquote(quoted) == name
}

func unquote(quoted []byte) string {
	if plain(quoted) {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // it is valid
	return text
}

// plain tells whether a text stands for itself: no escapes, and nothing that might be no UTF-8.
func plain(quoted []byte) bool {
	for _, b := range quoted {
		if b >= 0x80 || b == '\\' {
			return false
		}
	}
	return true
}

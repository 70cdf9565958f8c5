package token

import (
	"encoding/json"
	"testing"
)

// FuzzObject holds the reading of members against encoding/json.
func FuzzObject(f *testing.F) {
	for _, text := range []string{
		`{"name":"text"}`, `{ "name" : "a\u0041\"\\" , "other" : { "name" : "no" } }`, `{"n\u0061me":"text"}`,
		`{"name":"first","name":"last"}`, `{"name":"first","name":1}`, `{"name":null,"x":["name","no"],"y":"name"}`,
		`{"name":"\ud800","x":"ü"}`, `{"x":{"y":[{},"name"]},"name":"text"}`, `{}`, `[]`, `null`, `"name"`, ` {"name":"a"} `,
		`{"Name":"no"}`, `{"name":{"name":"no"}}`, "{\"name\":\"\xff\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, readable := readJSON(text)
		if !readable {
			return
		}
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(o, &fields) // other JSON has none
		var want string
		_ = json.Unmarshal(fields["name"], &want) // no text is a blank one
		if got := o.text("name"); got != want {
			t.Errorf("%q has %q, want %q", text, got, want)
		}
	})
}

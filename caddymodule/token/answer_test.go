package token

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"
)

// FuzzAnswer holds that no answer, whatever it is, ends the process, and that what is kept of it can be written down
// and means the same afterwards.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		`{"access_token":"text"}`, `{ "access_token" : "a\u0041\"\\" , "error" : { "error" : "no" } }`, `{"acc\u0065ss_token":"text"}`,
		`{"error":"first","error":"last"}`, `{"error":"first","error":1}`, `{"error":null,"x":["error","no"],"y":"error"}`,
		`{"error":"\ud800","x":"ü"}`, `{}`, `[]`, `null`, `"error"`, ` {"error":"a"} `, `access_token=a`, "{\"error\":\"\xff\"}",
	} {
		f.Add(400, []byte(text))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := newAnswer(&http.Response{StatusCode: status}, body, []string{"access_token"})
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var again Answer
		if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%+v is %+v after it was written down: %v", a, again, err)
		}
		if v, w := judge(&Grant{}, Basic, &a), judge(&Grant{}, Basic, &again); v != w {
			t.Errorf("%+v means %+v, and %+v after it was written down", a, v, w)
		}
	})
}

func TestOfAnAnswerOnlyTheWantedTextsAreKept(t *testing.T) {
	a := newAnswer(&http.Response{StatusCode: 200},
		[]byte(`{"access_token":"first","access_token":"last","refresh_token":7,"id_token":"no","Access_Token":"no"}`),
		[]string{"access_token", "refresh_token"})
	if want := (Fields{{"access_token", "last"}}); !reflect.DeepEqual(a.Fields, want) {
		t.Errorf("it has %v, want %v", a.Fields, want)
	}
}

// FuzzMembers holds the reading of members against encoding/json.
func FuzzMembers(f *testing.F) {
	for _, text := range []string{
		`{"a":"text","error":"no"}`, `{ "a" : "a\u0041\"\\" , "error" : { "a" : "no" } }`, `{"\u0061":"text"}`, `{"a":"first","a":1}`,
		`{"A":"no"}`, `{"a":null,"x":["a","no",{}],"error":-1.5e3,"suberror":true}`, `{"suberror":"\ud800","ü":"ü"}`, "\ufeff\n{}", `[]`, `null`,
		`{"a":"}","error":"]","suberror":",:"}`, `{"a":[{"a":"}"}]}`, "{\"a\xff\":\"a\",\"a\ufffd\":\"\xff\"}", `{"":"blank"}`, ``, `{`, `{"a"}`,
	} {
		f.Add([]byte(text))
	}
	wanted := []string{"a", "ü", "a\ufffd", "error"}
	f.Fuzz(func(t *testing.T, content []byte) {
		a := newAnswer(&http.Response{StatusCode: 200}, content, wanted)
		var members map[string]json.RawMessage
		content = bytes.TrimPrefix(content, []byte("\ufeff"))
		_ = json.Unmarshal(content, &members) // other JSON has none
		text := func(name string) (text string) {
			_ = json.Unmarshal(members[name], &text) // no text is a blank one
			return text
		}
		if a.Readable != json.Valid(content) || a.Object != (members != nil) || a.Error != text("error") || a.Suberror != text("suberror") {
			t.Errorf("%q is %+v", content, a)
		}
		for _, name := range wanted {
			if kept := a.Fields.Get(name); kept != text(name) {
				t.Errorf("%q: %q is %q", content, name, kept)
			}
		}
	})
}

func TestTheLifeOfATokenIsReadHoweverItIsWritten(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`3600`: time.Hour, `"3600"`: time.Hour, `3599.5`: 3599*time.Second + 500*time.Millisecond,
		`0`: 0, `-1`: 0, `null`: 0, `"soon"`: 0, `{}`: 0, `1e300`: maxLife, `"NaN"`: 0,
	} {
		a := newAnswer(&http.Response{StatusCode: 200}, []byte(`{"access_token":"a","expires_in":`+text+`}`), []string{"access_token"})
		if a.Life != want {
			t.Errorf("%s is %v", text, a.Life)
		}
	}
}

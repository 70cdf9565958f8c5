package token

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
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
	if want := map[string]string{"access_token": "last"}; !reflect.DeepEqual(a.Fields, want) {
		t.Errorf("it has %v, want %v", a.Fields, want)
	}
}

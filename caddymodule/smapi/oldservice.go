package smapi

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The faults of an old service that say something of a session or an account, as FaultCode returns them.
const (
	SessionIDInvalid = "Client.SessionIdInvalid"
	LoginInvalid     = "Client.LoginInvalid" // a password that is no longer right
)

// OfAccount reports whether the code of a fault says that the old service does not serve an account.
func OfAccount(code string) bool { return strings.HasPrefix(code, "Client.Login") }

// AskForSession has r, a clone of a player's request, ask for a session as a player of a Session ID service does.
func AskForSession(r *http.Request, username, password string) {
	var w writer
	w.element("username", username)
	w.element("password", password)
	body := []byte(`<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="` + soapNamespace + `"><s:Body><` + string(GetSessionID) +
		` xmlns="` + sonosNamespace + `">` + string(w.out) + `</` + string(GetSessionID) + `></s:Body></s:Envelope>`)
	for _, name := range []string{"Authorization", "Accept-Encoding", "Content-Encoding", "Expect", "Te"} {
		r.Header.Del(name)
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `"`+sonosNamespace+"#"+string(GetSessionID)+`"`)
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	r.Method, r.ContentLength, r.TransferEncoding = http.MethodPost, int64(len(body)), nil
	r.Body = io.NopCloser(bytes.NewReader(body))
}

// SessionIDOf returns the session id of the answer to AskForSession, blank where it has none.
func SessionIDOf(answer []byte) (id string) {
	inAnswer(answer, func(d *document, _ int) {
		for i := range d.elements {
			if e := &d.elements[i]; e.name == getSessionIDResultName && e.first == 0 {
				id = string(bytes.TrimSpace(d.text(i)))
			}
		}
	})
	return id
}

// FaultCode returns the code of a SOAP fault, such as Client.SessionIdInvalid, without the prefix that some stacks put in front of
// it. It is blank where an answer is none.
func FaultCode(answer []byte) (code string) {
	inAnswer(answer, func(d *document, content int) {
		fault := int(d.elements[content].first)
		if fault == 0 || !d.is(fault, soap, faultName) {
			return
		}
		for i := range d.children(fault) {
			if d.elements[i].name == faultCodeName {
				code = string(bytes.TrimSpace(d.text(i)))
			}
		}
	})
	return code[strings.LastIndexByte(code, ':')+1:]
}

// inAnswer calls f with the document of an answer and its SOAP body, if it is one.
func inAnswer(answer []byte, f func(d *document, content int)) {
	s := scanners.Get().(*scanner)
	defer s.release()
	d, err := s.scan(inUTF8(answer))
	if err != nil {
		return
	}
	if _, content, err := d.envelope(); err == nil {
		f(d, content)
	}
}

// inUTF8 is an answer without what stands in front of its first element. An old service may write it in its own encoding, which is
// taken for Latin-1 unless it is UTF-8 or UTF-16: what is looked for is hardly ever more than ASCII. Nobody can gain by it,
// as with calls: the old service says what it likes.
func inUTF8(answer []byte) []byte {
	var unit func([]byte) uint16
	switch {
	case bytes.HasPrefix(answer, []byte{0xfe, 0xff}):
		unit = binary.BigEndian.Uint16
	case bytes.HasPrefix(answer, []byte{0xff, 0xfe}):
		unit = binary.LittleEndian.Uint16
	}
	if unit != nil {
		var units []uint16
		for rest := answer[2:]; len(rest) >= 2; rest = rest[2:] {
			units = append(units, unit(rest))
		}
		answer = []byte(string(utf16.Decode(units)))
	}
	answer = bytes.TrimSpace(bytes.TrimPrefix(answer, byteOrderMark))
	for bytes.HasPrefix(answer, []byte("<?")) {
		_, behind, _ := bytes.Cut(answer, []byte("?>"))
		answer = bytes.TrimSpace(behind)
	}
	if !utf8.Valid(answer) {
		var latin []byte
		for _, b := range answer {
			latin = utf8.AppendRune(latin, rune(b))
		}
		answer = latin
	}
	return answer
}

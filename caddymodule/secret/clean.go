package secret

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
)

var (
	errEmpty   = errors.New("is empty")
	errUTF16   = errors.New("is UTF-16 or binary; save it as UTF-8")
	errNotUTF8 = errors.New("is not UTF-8; save it as such")
	errControl = errors.New("has a tab, a line end or another control character within; it has to be one line of text")
)

const byteOrderMark = "\uFEFF"

// Clean returns a secret of one line as it is meant, without what editors and shells put around it: a UTF-8 byte order
// mark and line ends after it. Odd says what else around it may be a mistake, which is kept; it is "" where nothing is.
// UTF-16, invalid UTF-8, control characters and nothing at all are errors. Odd and errors follow on a name ("is
// empty") and do not quote.
func Clean(raw string) (text, odd string, err error) {
	if utf16(raw) {
		return "", "", errUTF16
	}
	text = strings.TrimRight(strings.TrimPrefix(raw, byteOrderMark), "\r\n")
	switch {
	case text == "":
		return "", "", errEmpty
	case !utf8.ValidString(text):
		return "", "", errNotUTF8
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "", "", errControl
	case strings.TrimSpace(text) != text:
		odd = "begins or ends with a blank"
	case len(text) > 1 && text[0] == text[len(text)-1] && strings.IndexByte("\"'`", text[0]) >= 0:
		odd = "is in quotes"
	}
	return text, odd, nil
}

// CleanKey returns a key of several lines, PEM or JSON, without a UTF-8 byte order mark. UTF-16 and nothing at all
// are errors, as with Clean.
func CleanKey(raw []byte) ([]byte, error) {
	text := bytes.TrimPrefix(raw, []byte(byteOrderMark))
	switch {
	case utf16(string(raw)):
		return nil, errUTF16
	case len(bytes.TrimSpace(text)) == 0:
		return nil, errEmpty
	}
	return text, nil
}

func utf16(text string) bool {
	return strings.HasPrefix(text, "\xFF\xFE") || strings.HasPrefix(text, "\xFE\xFF") || strings.Contains(text, "\x00")
}

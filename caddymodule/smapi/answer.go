package smapi

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// MaxToken is how many characters an authToken and a privateKey may have, by Sonos's documentation. What a
// player does with a longer one is not known.
const MaxToken = 2048

// The reasons why CheckToken refuses.
var (
	ErrTokenBlank   = errors.New("the token is blank")
	ErrTokenLong    = errors.New("the token is longer than the 2048 characters that players accept")
	ErrTokenNotText = errors.New("the token has characters that XML cannot carry")
)

// CheckToken reports whether a player can be given token as an authToken or a privateKey.
func CheckToken(token string) error {
	switch {
	case strings.TrimSpace(token) == "":
		return ErrTokenBlank // it would tell the player to have the listener sign in again
	case utf8.RuneCountInString(token) > MaxToken:
		return ErrTokenLong
	case strings.ContainsFunc(token, notXML):
		return ErrTokenNotText
	}
	return nil
}

// notXML holds for what XML cannot carry to the other side: the characters that it lacks, the carriage
// return, which readers turn into a line feed, and what decoders put in the place of what is no character.
func notXML(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' || r >= utf8.RuneError && r <= 0xFFFF
}

// Pair is the answer to GetDeviceAuthToken or RefreshAuthToken, nil for other methods. Blank, it sends the listener
// to sign in again; otherwise CheckToken holds for both tokens. It never has a userInfo: the listener may have
// chosen a nickname of their own.
func Pair(method Method, authToken, privateKey string) []byte {
	m := methodOf(method)
	if m == nil || m.pair == nil {
		return nil
	}
	authToken, privateKey = escape.Replace(authToken), escape.Replace(privateKey)
	out := make([]byte, 0, len(m.pair[0])+len(authToken)+len(m.pair[1])+len(privateKey)+len(m.pair[2]))
	out = append(append(out, m.pair[0]...), authToken...)
	out = append(append(out, m.pair[1]...), privateKey...)
	return append(out, m.pair[2]...)
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// pairOf is the answer to a method before, between and behind its two tokens.
func pairOf(method Method) []string {
	const token = "$token"
	return strings.Split(string(answer(method, func(result *etree.Element) {
		result.CreateElement("authToken").SetText(token)
		result.CreateElement("privateKey").SetText(token)
	})), token)
}

// Link is where a listener signs in. All texts are ones that XML can carry; CheckLink tells.
type Link struct {
	// URL is the page, in the listener's browser.
	URL string

	// Code is what the listener types in there, of at most MaxLinkCode characters. Show has the app show it.
	Code string
	Show bool

	// DeviceID comes back with every Poll, and is shown to nobody. It has at most MaxLinkDeviceID characters.
	DeviceID string
}

// The reasons why CheckLink refuses.
var (
	ErrLinkCode = errors.New("the code is blank, longer than the 32 characters that apps accept, or has characters that XML cannot carry")
	ErrLinkID   = errors.New("the linkDeviceId is longer than the 1024 characters that players accept")
	ErrLinkURL  = errors.New("the address has characters that XML cannot carry")
)

// CheckLink reports whether an app can be given a link.
func CheckLink(l *Link) error {
	switch {
	case strings.TrimSpace(l.Code) == "" || utf8.RuneCountInString(l.Code) > MaxLinkCode || strings.ContainsFunc(l.Code, notXML):
		return ErrLinkCode
	case len(l.DeviceID) > MaxLinkDeviceID:
		return ErrLinkID
	case strings.ContainsFunc(l.URL, notXML):
		return ErrLinkURL
	}
	return nil
}

// AppLink is the answer to GetAppLink: urlStringID names the text for the link in the service's localization resources.
func AppLink(l *Link, urlStringID string) []byte {
	return answer(GetAppLink, func(result *etree.Element) {
		account := result.CreateElement("authorizeAccount")
		account.CreateElement("appUrlStringId").SetText(urlStringID)
		l.write(account.CreateElement("deviceLink"))
	})
}

// DeviceLinkCode is the answer to GetDeviceLinkCode.
func DeviceLinkCode(l *Link) []byte { return answer(GetDeviceLinkCode, l.write) }

// write writes the elements in the order of Sonos's schema.
func (l *Link) write(to *etree.Element) {
	to.CreateElement("regUrl").SetText(l.URL)
	to.CreateElement("linkCode").SetText(l.Code)
	to.CreateElement("showLinkCode").SetText(strconv.FormatBool(l.Show))
	to.CreateElement("linkDeviceId").SetText(l.DeviceID)
}

// SignedIn is the answer to a Poll whose listener has signed in. CheckToken holds for both tokens. The userIDHash stands
// for the user, has at most 256 characters, and is left out where it is blank. There is no nickname: the listener may have
// chosen one.
func SignedIn(authToken, privateKey, userIDHash string) []byte {
	return answer(GetDeviceAuthToken, func(result *etree.Element) {
		result.CreateElement("authToken").SetText(authToken)
		result.CreateElement("privateKey").SetText(privateKey)
		if userIDHash != "" {
			result.CreateElement("userInfo").CreateElement("userIdHashCode").SetText(userIDHash)
		}
	})
}

// answer is the answer to a method.
func answer(method Method, fill func(result *etree.Element)) []byte {
	return envelope(func(body *etree.Element) {
		response := body.CreateElement(string(method) + "Response")
		response.CreateAttr("xmlns", sonosNamespace)
		fill(response.CreateElement(string(method) + "Result"))
	})
}

// Fault is a SOAP fault, which goes out with HTTP status 500 whatever its cause.
type Fault struct {
	// Code is one of the fault codes that Sonos documents.
	Code string

	// SonosError is the number that goes with Code, blank where there is none.
	SonosError string

	// Text is for people: players show it to nobody, Sonos logs it.
	Text string
}

// The faults that calls are answered with.
var (
	AuthTokenExpired = Fault{
		Code: "Client.AuthTokenExpired",
		Text: "The account has to prove itself anew",
	}
	NotLinkedFailure = Fault{
		Code:       "Client.NOT_LINKED_FAILURE",
		SonosError: "6",
		Text:       "The account could not be upgraded and has to be linked again",
	}
	NotLinkedRetry = Fault{
		Code:       "Client.NOT_LINKED_RETRY",
		SonosError: "5",
		Text:       "The listener has not signed in yet, ask again",
	}
	LinkFailed = Fault{
		Code:       NotLinkedFailure.Code,
		SonosError: NotLinkedFailure.SonosError,
		Text:       "The listener has not signed in, begin again",
	}
	ServiceUnavailable = Fault{
		Code: "Server.ServiceUnavailable",
		Text: "The service cannot answer now, try again later",
	}
)

// Envelope is the fault as a player gets it. The reference ends up in Sonos's logs, where it leads support
// to the same event in the operator's.
func (f Fault) Envelope(reference string) []byte {
	parts, known := faults[f]
	if !known {
		return f.write(reference)
	}
	return []byte(strings.Join(parts, escape.Replace(reference)))
}

// faults are those above before, between and behind their references: a wave turns away thousands a second.
var faults = func() map[Fault][]string {
	const reference = "$reference"
	all := make(map[Fault][]string)
	for _, f := range [...]Fault{AuthTokenExpired, NotLinkedFailure, NotLinkedRetry, LinkFailed, ServiceUnavailable} {
		all[f] = strings.Split(string(f.write(reference)), reference)
	}
	return all
}()

func (f Fault) write(reference string) []byte {
	return envelope(func(body *etree.Element) {
		fault := body.CreateElement("soap:Fault")
		fault.CreateElement("faultcode").SetText(f.Code)
		fault.CreateElement("faultstring").SetText(f.Text + " (reference " + reference + ")")
		detail := fault.CreateElement("detail")
		info := detail.CreateElement("ns:ExceptionInfo")
		info.CreateAttr("xmlns:ns", sonosNamespace)
		info.SetText("reference " + reference)
		if f.SonosError != "" {
			number := detail.CreateElement("ns:SonosError")
			number.CreateAttr("xmlns:ns", sonosNamespace)
			number.SetText(f.SonosError)
		}
	})
}

func envelope(fill func(body *etree.Element)) []byte {
	doc := etree.NewDocument()
	doc.WriteSettings.CanonicalEndTags = true
	doc.CreateProcInst("xml", `version="1.0" encoding="utf-8"`)
	root := doc.CreateElement("soap:Envelope")
	root.CreateAttr("xmlns:soap", soapNamespace)
	fill(root.CreateElement("soap:Body"))
	out, _ := doc.WriteToBytes() // writes to memory, which cannot fail
	return out
}

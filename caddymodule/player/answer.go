package player

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Outcome is what became of a call, as its player sees it.
type Outcome string

// The outcomes.
const (
	Upgraded       Outcome = "upgraded"
	SignInAgain    Outcome = "sign_in_again"   // a blank pair
	NotLinked      Outcome = "not_linked"      // the fault Client.NOT_LINKED_FAILURE
	SessionExpired Outcome = "session_expired" // the fault Client.AuthTokenExpired
	TryAgain       Outcome = "try_again"       // the fault Server.ServiceUnavailable
	AnotherFault   Outcome = "another_fault"
	NotAccepted    Outcome = "not_accepted" // a SOAP answer that no player has to understand
	NotSMAPI       Outcome = "not_smapi"    // an HTTP answer that is no SOAP
	NoAnswer       Outcome = "no_answer"
)

// Answer is what a player makes of an answer. It holds no token.
type Answer struct {
	Outcome Outcome

	// Reason tells more of AnotherFault, NotAccepted, NotSMAPI and NoAnswer. It holds nothing that the other side
	// is free to choose, which might be a credential.
	Reason string

	// Reference is the short code of a fault that leads support to the line in the log, blank if there is none.
	Reference string
}

// maxAnswer is how much of an answer is read, in bytes. Two tokens of 2048 characters, all of them escaped, fit.
const maxAnswer = 64 << 10

// Read reads an answer to an upgrade call as strictly as a player may, by Sonos's schema and documentation.
func Read(status int, body []byte) Answer {
	root, err := parse(body)
	return read(status, root, err, "a pair", readPair)
}

// read reads an answer that was parsed, one without a fault as readWell does, which is of what.
func read(status int, root *node, err error, what string, readWell func(*node) (Answer, error)) Answer {
	if root == nil || root.name.Local != "Envelope" {
		return Answer{Outcome: NotSMAPI, Reason: strings.TrimSpace(fmt.Sprint("status ", status, " ", http.StatusText(status)))}
	}
	if err != nil {
		return notAccepted(err)
	}
	content, err := root.content()
	if err != nil {
		return notAccepted(err)
	}
	wanted, read := http.StatusOK, readWell
	if content.name.Space == soapNamespace && content.name.Local == "Fault" {
		wanted, what, read = http.StatusInternalServerError, "a fault", readFault
	}
	answer, err := read(content)
	if err == nil && status != wanted {
		err = fmt.Errorf("%s with status %d", what, status)
	}
	if err != nil {
		return notAccepted(err)
	}
	return answer
}

func notAccepted(err error) Answer { return Answer{Outcome: NotAccepted, Reason: err.Error()} }

// readPair reads the answer to getDeviceAuthToken.
func readPair(response *node) (a Answer, err error) {
	const method = string(smapi.GetDeviceAuthToken)
	if response.name.Local != method+"Response" {
		return a, invalid("an answer to another method")
	}
	if response.name.Space != sonosNamespace {
		return a, invalid(method + "Response in a wrong namespace")
	}
	found, err := response.sequence(sonosNamespace, method+"Result")
	if err != nil {
		return a, err
	}
	if found, err = found[0].sequence(sonosNamespace, "authToken", "privateKey", "userInfo?"); err != nil {
		return a, err
	}
	if err := checkUserInfo(found[2]); err != nil {
		return a, err
	}
	blank := 0
	for _, token := range found[:2] {
		switch {
		case len(token.children) > 0:
			return a, invalid("an element in " + token.name.Local)
		case strings.TrimSpace(token.text) == "":
			blank++
		case utf8.RuneCountInString(token.text) > smapi.MaxToken:
			return a, fmt.Errorf("%s of more than %d characters", token.name.Local, smapi.MaxToken)
		}
	}
	switch blank {
	case 0:
		return Answer{Outcome: Upgraded}, nil
	case 1:
		return a, invalid("a pair that is blank by half")
	}
	return Answer{Outcome: SignInAgain}, nil
}

// checkUserInfo refuses a nickname, which would take the place of the one that the listener has chosen.
func checkUserInfo(info *node) error {
	if info == nil {
		return nil
	}
	found, err := info.sequence(sonosNamespace, "userIdHashCode", "accountTier?", "accountStatus?", "nickname?")
	if err == nil && found[3] != nil {
		err = invalid("userInfo with a nickname")
	}
	return err
}

// faults are the fault codes that Sonos documents, with what a player makes of them.
var faults = map[string]Outcome{
	"Client.NOT_LINKED_FAILURE":   NotLinked,
	"Client.AuthTokenExpired":     SessionExpired,
	"Server.ServiceUnavailable":   TryAgain,
	"Client.NOT_LINKED_RETRY":     AnotherFault,
	"Client.TokenRefreshRequired": AnotherFault,
	"Client.LoginInvalid":         AnotherFault,
	"Client.LoginUnauthorized":    AnotherFault,
	"Client.LoginDisabled":        AnotherFault,
	"Client.SessionIdInvalid":     AnotherFault,
	"Server.ServiceUnknownError":  AnotherFault,
}

// sonosErrors are the numbers that go with fault codes.
var sonosErrors = map[string]string{"Client.NOT_LINKED_RETRY": "5", "Client.NOT_LINKED_FAILURE": "6"}

var reference = regexp.MustCompile(`\breference ([A-Z2-7]{8})\b`)

func readFault(fault *node) (a Answer, err error) {
	found, err := fault.sequence("", "faultcode", "faultstring", "faultactor?", "detail?")
	if err != nil {
		return a, err
	}
	code, text := strings.TrimSpace(found[0].text), found[1].text
	if detail := found[3]; detail != nil {
		for _, child := range detail.children {
			switch child.name.Local {
			case "ExceptionInfo":
				text += " " + child.text
			case "SonosError":
				if wanted := sonosErrors[code]; wanted != "" && strings.TrimSpace(child.text) != wanted {
					return a, invalid("a SonosError that does not go with its faultcode")
				}
			default:
				continue
			}
			if child.name.Space != sonosNamespace {
				return a, invalid(child.name.Local + " in a wrong namespace")
			}
		}
	}
	if a.Outcome = faults[code]; a.Outcome == "" {
		a.Outcome, code = AnotherFault, "a faultcode that Sonos does not document"
	}
	if a.Outcome == AnotherFault {
		a.Reason = code
	}
	if match := reference.FindStringSubmatch(text); match != nil {
		a.Reference = match[1]
	}
	return a, nil
}

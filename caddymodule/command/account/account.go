// Package account reads accounts: many from a file, or one that somebody types in. Nothing that it says quotes them.
package account

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/player"
	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// Max is how many accounts are read at most.
const Max = 1_000_000

// What a line of accounts may be wrong in. None of it quotes the line.
var (
	errOneTab     = errors.New("has to be two values with one tab between them")
	errNoTab      = errors.New("has to be one value without a tab")
	errBlankValue = errors.New("has a blank value")
	errLongValue  = fmt.Errorf("has a value of more than %d characters", smapi.MaxToken)
	errNotXML     = errors.New("has characters that XML cannot carry, or is not UTF-8")
	errTooMany    = fmt.Errorf("is one account more than the %d that are played at most", Max)
)

// Read reads accounts of a kind, one per line: a user name and a password, or a token and a key, with a
// tab between them, or a session id. Blank lines and those that begin with # are skipped; nothing is trimmed. An
// error names the line by its number and holds nothing of it.
func Read(r io.Reader, kind smapi.Kind) (accounts []player.Account, err error) {
	lines := bufio.NewScanner(r)
	n := 1
	for ; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		account, err := parseAccount(line, kind)
		if err == nil && len(accounts) == Max {
			err = errTooMany
		}
		if err != nil {
			return nil, fmt.Errorf("line %d %w", n, err)
		}
		accounts = append(accounts, account)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d %w", n, errLongValue)
	}
	return accounts, lines.Err()
}

func parseAccount(line string, kind smapi.Kind) (a player.Account, err error) {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, notXML) {
		return a, errNotXML
	}
	values := strings.Split(line, "\t")
	for _, value := range values {
		if value == "" {
			return a, errBlankValue
		}
		if utf8.RuneCountInString(value) > smapi.MaxToken {
			return a, errLongValue
		}
	}
	a.Kind = kind
	if kind == smapi.SessionID {
		if len(values) != 1 {
			return a, errNoTab
		}
		a.SessionID = values[0]
		return a, nil
	}
	if len(values) != 2 {
		return a, errOneTab
	}
	if kind == smapi.Login {
		a.Username, a.Password = values[0], values[1]
	} else {
		a.Token, a.Key = values[0], values[1]
	}
	return a, nil
}

// notXML holds for what does not reach the other side as it is: what XML lacks, and the carriage return.
func notXML(r rune) bool {
	return r < 0x20 && r != '\t' || r == 0xFFFE || r == 0xFFFF
}

package account

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/smapi"
)

// ReadFile reads the one account in the file of an option.
func ReadFile(option, path string, kind smapi.Kind) (smapi.Credentials, error) {
	file, err := os.Open(path)
	if err != nil {
		return smapi.Credentials{}, fmt.Errorf("%s: %w", option, err)
	}
	defer file.Close()
	return ReadOne(option, file, kind)
}

// ReadOne reads one account from what is called so.
func ReadOne(what string, in io.Reader, kind smapi.Kind) (smapi.Credentials, error) {
	accounts, err := Read(in, kind)
	switch {
	case err != nil:
		return smapi.Credentials{}, fmt.Errorf("%s: %w", what, err)
	case len(accounts) != 1:
		return smapi.Credentials{}, fmt.Errorf("%s: there has to be one account, not %d", what, len(accounts))
	}
	return accounts[0].Credentials, nil
}

// valuesOf are the values that a kind of credentials has, in their order on a line.
var valuesOf = map[smapi.Kind][]string{
	smapi.Login:      {"User name", "Password"},
	smapi.SessionID:  {"Session id"},
	smapi.LoginToken: {"Token", "Key"},
}

// Prompt asks for an account on the terminal, without an echo of what is secret, and returns its line.
func Prompt(out io.Writer, in io.Reader, terminal int, kind smapi.Kind) (io.Reader, error) {
	var values []string
	for _, name := range valuesOf[kind] {
		fmt.Fprintf(out, "%s: ", name)
		var value string
		var err error
		if name == "User name" {
			value, err = ReadLine(in)
		} else {
			value, err = readSecret(terminal)
			fmt.Fprintln(out)
		}
		if err != nil {
			return nil, errors.New("no account was given")
		}
		values = append(values, value)
	}
	fmt.Fprintln(out)
	return strings.NewReader(strings.Join(values, "\t")), nil
}

// exitInterrupted is the exit code of a command that was interrupted before it did anything.
const exitInterrupted = 2

// readSecret reads a line without an echo, which it does not leave off when it is interrupted.
func readSecret(terminal int) (string, error) {
	before, err := term.GetState(terminal)
	if err != nil {
		return "", err
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer close(interrupts)
	defer signal.Stop(interrupts)
	go func() {
		if _, interrupted := <-interrupts; interrupted {
			_ = term.Restore(terminal, before)
			os.Exit(exitInterrupted)
		}
	}()
	secret, err := term.ReadPassword(terminal)
	return string(secret), err
}

// ReadLine reads a line and nothing behind it.
func ReadLine(in io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); ; {
		n, err := in.Read(one)
		if n > 0 && one[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		if n > 0 {
			line = append(line, one[0])
		}
		if err != nil {
			return "", err
		}
	}
}

package secret

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// File returns a value that is made of one file of several lines, such as a private key: of what CleanKey leaves of
// it. The file is relative to the working directory. Errors of parse are put behind its name, and must not quote what
// it holds.
func File[T any](config Config, file string, parse func(content []byte) (T, error)) (*Value[T], error) {
	return start(config, []string{file}, func(contents [][]byte) (value T, odd []string, err error) {
		content, err := CleanKey(contents[0])
		if err == nil {
			value, err = parse(content)
		}
		if err != nil {
			err = fmt.Errorf("the file %s %w", file, err)
		}
		return value, nil, err
	})
}

var (
	errNoCertificate = errors.New("holds no certificate in PEM")
	errNoKey         = errors.New("holds no private key in PEM")
	errNoPair        = errors.New("do not belong together, or one of them is damaged")
)

// Pair returns a certificate and its private key, from two PEM files relative to the working directory. While the
// two do not belong together, as when only one has been replaced, the last pair stays in force.
func Pair(config Config, certificate, key string) (*Value[*tls.Certificate], error) {
	return start(config, []string{certificate, key}, func(contents [][]byte) (*tls.Certificate, []string, error) {
		cert, err := readPEM(certificate, contents[0], "CERTIFICATE", errNoCertificate)
		if err != nil {
			return nil, nil, err
		}
		private, err := readPEM(key, contents[1], "PRIVATE KEY", errNoKey)
		if err != nil {
			return nil, nil, err
		}
		pair, err := tls.X509KeyPair(cert, private)
		if err != nil { // which may quote
			return nil, nil, fmt.Errorf("the files %s and %s %w", certificate, key, errNoPair)
		}
		return &pair, nil, nil
	})
}

// readPEM returns a file that has a block of the kind, without its byte order mark.
func readPEM(file string, content []byte, kind string, missing error) ([]byte, error) {
	content, err := CleanKey(content)
	if err == nil {
		err = missing
		for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
			if strings.HasSuffix(block.Type, kind) {
				return content, nil
			}
		}
	}
	return nil, fmt.Errorf("the file %s %w", file, err)
}

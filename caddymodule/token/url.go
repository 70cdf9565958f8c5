package token

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// What is wrong with the URL of a token endpoint or an issuer. None quotes it.
var (
	errNoURL    = errors.New("is no absolute http or https URL")
	errURLParts = errors.New("has a user or a fragment, which it cannot have")
	errHTTP     = errors.New("is http beyond loopback, which sends passwords in the clear; use https, or allow it with insecure_http")
	errQuery    = errors.New("has a query, which no issuer has")
)

// ParseURL reads the URL of a token endpoint. It has to be https, unless it is on loopback or insecure is true.
func ParseURL(text string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || !validPort(u.Port()):
		return nil, errNoURL
	case u.User != nil || u.Fragment != "":
		return nil, errURLParts
	case u.Scheme == "http" && !insecure && !Loopback(u.Hostname()):
		return nil, errHTTP
	}
	return u, nil
}

// ParseIssuer reads the URL of an issuer, by the same rules. It has no query.
func ParseIssuer(text string, insecure bool) (*url.URL, error) {
	u, err := ParseURL(text, insecure)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		return nil, errQuery
	}
	return u, err
}

func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil
}

// Loopback reports whether a host, a name or an address, is this machine without asking anybody.
func Loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// Package households chooses homes by a share of all.
package households

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Percent is a share of all homes: from `0%` to `100%`.
type Percent float64

// All is every home.
const All Percent = 100

var errPercent = errors.New("has to be a percentage from 0% to 100%, such as 10%")

// Parse reads a text such as "10%".
func Parse(text string) (Percent, error) {
	number, ok := strings.CutSuffix(text, "%")
	p, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil {
		return 0, errPercent
	}
	return Percent(p), Percent(p).Check()
}

// Check returns an error for what is no share.
func (p Percent) Check() error {
	if !(p >= 0 && p <= All) { // nor is it NaN
		return errPercent
	}
	return nil
}

// Chooses reports whether a home is among them. It is by the id alone, and so the same on every node, and the homes of a
// smaller share are a subset of those of a larger one.
func (p Percent) Chooses(householdID string) bool {
	if p == All {
		return true
	}
	sum := sha256.Sum256([]byte(householdID))
	place := float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) // in [0, 1)
	return place*100 < float64(p)
}

// UnmarshalJSON reads a text such as "10%", or a number of percent.
func (p *Percent) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) == nil {
		*p, err = Parse(s)
		return err
	}
	if json.Unmarshal(text, (*float64)(p)) != nil {
		return errPercent
	}
	return p.Check()
}

// MarshalJSON writes a text such as "10%".
func (p Percent) MarshalJSON() ([]byte, error) {
	return json.Marshal(p.String())
}

func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

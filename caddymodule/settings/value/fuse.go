package value

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/flow/households"
)

// Fuse is the share of accounts above which rejections are doubted: from `1%` to `100%`, or "off", which is 100%. The
// zero value is the default.
type Fuse households.Percent

// DefaultFuse is "50%".
const DefaultFuse Fuse = 50

const fuseOff Fuse = 100

var errFuse = errors.New("must be off, or a percentage from 1% to 100%, such as 50%")

// ParseFuse reads "off" or a text such as "50%".
func ParseFuse(text string) (Fuse, error) {
	if text == "off" {
		return fuseOff, nil
	}
	p, err := households.Parse(text)
	if err != nil || p < 1 {
		return 0, errFuse
	}
	return Fuse(p), nil
}

// UnmarshalJSON reads "off" or a text such as "50%".
func (f *Fuse) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return errFuse
	}
	*f, err = ParseFuse(s)
	return err
}

// MarshalJSON writes such a text.
func (f Fuse) MarshalJSON() ([]byte, error) {
	if f == fuseOff {
		return []byte(`"off"`), nil
	}
	return json.Marshal(strconv.FormatFloat(float64(f), 'f', -1, 64) + "%")
}

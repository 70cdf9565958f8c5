package legacy

import (
	"net/http"
	"slices"
)

// Fields are those of a header at some moment.
type Fields []field

type field struct {
	name   string
	value  string // the only one, as of most
	values []string
	one    bool
}

// Of returns the fields of a header, in the room that f has. What others then change in place is not theirs.
func (f Fields) Of(header http.Header) Fields {
	f = f[:0]
	for name, values := range header {
		if len(values) == 1 {
			f = append(f, field{name: name, value: values[0], one: true})
		} else {
			f = append(f, field{name: name, values: slices.Clone(values)})
		}
	}
	return f
}

// Restore has a header be as it was.
func (f Fields) Restore(header http.Header) {
	clear(header)
	for i := range f {
		if f[i].one {
			header[f[i].name] = []string{f[i].value}
		} else {
			header[f[i].name] = slices.Clone(f[i].values)
		}
	}
}

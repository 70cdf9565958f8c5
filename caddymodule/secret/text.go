package secret

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var errPlaceholder = errors.New("has a placeholder that is not known, or empty; {env.NAME} and {file./path} are known. A brace that is meant needs a backslash before it")

// Text returns a text whose placeholders are replaced, as Caddy's replacer does: {file.X} by what Clean makes of the
// file, relative to the working directory, and others once and for all by what known returns, such as the GetString of
// a Caddy replacer; those of {env.X} go through Clean too. One that is not known or is empty is an error, which quotes
// nothing but the names of files and environment variables. A text without {file.X} is Constant.
func Text(config Config, text string, known func(name string) (value string, ok bool)) (*Value[string], error) {
	pieces := split(text)
	var files, oddities []string
	for i, p := range pieces {
		if file, ok := p.file(); ok {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		} else if p.placeholder {
			value, odd, err := replace(p.text, known)
			if err != nil {
				return nil, err
			}
			if odd != "" {
				oddities = append(oddities, odd)
			}
			pieces[i] = piece{text: value}
		}
	}
	return start(config, files, func(contents [][]byte) (string, []string, error) {
		odd := oddities
		oddities = nil // told once
		texts := make([]string, len(files))
		for i, content := range contents {
			what, err := "", error(nil)
			if texts[i], what, err = Clean(string(content)); err != nil {
				return "", nil, fmt.Errorf("the file %s %w", files[i], err)
			}
			if what != "" {
				odd = append(odd, fmt.Sprintf("the file %s %s", files[i], what))
			}
		}
		var whole strings.Builder
		for _, p := range pieces {
			if file, ok := p.file(); ok {
				whole.WriteString(texts[slices.Index(files, file)])
			} else {
				whole.WriteString(p.text)
			}
		}
		return whole.String(), odd, nil
	})
}

// replace returns the value of a placeholder that is not of a file.
func replace(name string, known func(string) (string, bool)) (value, odd string, err error) {
	value, ok := known(name)
	variable, isVariable := strings.CutPrefix(name, "env.")
	switch {
	case isVariable && value == "":
		return "", "", fmt.Errorf("the environment variable %s is not set, or empty", variable)
	case !ok || value == "":
		return "", "", errPlaceholder
	case !isVariable:
		return value, "", nil
	}
	if value, odd, err = Clean(value); err != nil {
		return "", "", fmt.Errorf("the environment variable %s %w", variable, err)
	}
	if odd != "" {
		odd = fmt.Sprintf("the environment variable %s %s", variable, odd)
	}
	return value, odd, nil
}

// piece is a part of a text: literal, or the name of a placeholder.
type piece struct {
	text        string
	placeholder bool
}

func (p piece) file() (name string, ok bool) {
	name, ok = strings.CutPrefix(p.text, "file.")
	return name, ok && p.placeholder
}

// split cuts a text at its placeholders, as Caddy's replacer does: a brace with a backslash before it is literal, and
// so is one that is not closed.
func split(text string) (pieces []piece) {
	var literal strings.Builder
	from := 0
	for i := 0; i < len(text); i++ {
		switch brace := text[i] == '{' || text[i] == '}'; {
		case brace && i > 0 && text[i-1] == '\\':
			literal.WriteString(text[from : i-1])
			from = i
		case text[i] == '{':
			end := closing(text, i)
			if end < 0 {
				continue
			}
			literal.WriteString(text[from:i])
			pieces = append(pieces, piece{text: literal.String()}, piece{text: text[i+1 : end], placeholder: true})
			literal.Reset()
			i, from = end, end+1
		}
	}
	literal.WriteString(text[from:])
	return append(pieces, piece{text: literal.String()})
}

// closing returns where the brace is closed: at the first one without a backslash, or at the end of the text. It is
// less than 0 where it is not.
func closing(text string, open int) int {
	end := open
	for {
		next := strings.IndexByte(text[end+1:], '}')
		if next < 0 {
			return -1
		}
		end += 1 + next
		if text[end-1] != '\\' || end == len(text)-1 {
			return end
		}
	}
}

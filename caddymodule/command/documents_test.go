package command

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What a document tells to type is there: each command, and each flag beside it.
func TestTheDocumentsNameCommandsAndFlagsThatThereAre(t *testing.T) {
	family := &cobra.Command{Use: "smapi-upgrade"}
	complete(family)
	// A command line ends with its line, its code or what it is piped into. In a text its first words may be left out.
	line := regexp.MustCompile("(`?caddy smapi-upgrade |`)([a-z]+)([^`|\n;&)]*)")
	flag := regexp.MustCompile(`--([a-z][a-z-]*)`)
	count := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*", "../../.github/*.md", "../../.github/*/*", "../../Caddyfile.example"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer(`\|`, "/", "\\\n", " ").Replace(string(content))
			for _, found := range line.FindAllStringSubmatch(text, -1) {
				whole, given := len(found[1]) > 1, flag.FindAllStringSubmatch(found[3], -1)
				command, _, err := family.Find([]string{found[2]})
				if err != nil || command == family {
					if whole {
						t.Errorf("%s: there is no command in %q", path, found[0])
					}
					continue
				}
				if !whole && len(given) == 0 {
					continue // a word that is an option, too
				}
				count++
				if words := strings.Fields(found[3]); command.HasSubCommands() && len(words) > 0 {
					parent := command
					for _, name := range strings.Split(words[0], "/") { // as in keygen|status
						sub, _, err := parent.Find([]string{name})
						if err != nil || sub == parent {
							t.Errorf("%s: there is no command %s %s", path, found[2], name)
						}
						command = sub
					}
				}
				for _, name := range given {
					if name[1] != "help" && command.Flags().Lookup(name[1]) == nil {
						t.Errorf("%s: %s has no --%s", path, command.CommandPath(), name[1])
					}
				}
			}
		}
	}
	if count < 25 {
		t.Errorf("found %d command lines", count)
	}
}

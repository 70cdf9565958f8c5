package page

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/smapi-tools/caddy-smapi-upgrade/caddymodule/command/figures"
)

// Progress is a bar on a terminal.
type Progress struct {
	stop chan struct{}
	gone chan struct{}
}

// ShowProgress draws a bar of how much of all is done, a few times a second until it ends, if out is a terminal whose cursor
// can be moved.
func ShowProgress(out io.Writer, done func() int, all int) *Progress {
	p := &Progress{stop: make(chan struct{}), gone: make(chan struct{})}
	fd, ok := Terminal(out)
	if !ok || os.Getenv("TERM") == "dumb" {
		close(p.gone)
		return p
	}
	go func() {
		defer close(p.gone)
		begin := time.Now()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			width, _, err := term.GetSize(fd)
			if err != nil || width > defaultWidth {
				width = defaultWidth
			}
			line := figures.Bar(done(), all, time.Since(begin), width-1) // the last column would begin a new line
			fmt.Fprint(out, "\r", line, "\x1b[K")
			select {
			case <-tick.C:
			case <-p.stop:
				fmt.Fprint(out, "\r\x1b[K")
				return
			}
		}
	}()
	return p
}

// End takes the bar away.
func (p *Progress) End() {
	close(p.stop)
	<-p.gone
}

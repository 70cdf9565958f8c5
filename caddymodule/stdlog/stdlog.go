// Package stdlog keeps answers of token endpoints out of the standard logger.
package stdlog

import (
	"bytes"
	"io"
	"log"
)

// quiet leaves out what net/http says of answers, and so keeps it out of Caddy's log, too. When an answer has more
// bytes than its Content-Length announced, net/http prints them there once the connection is idle, and they may be the
// end of a token.
type quiet struct{ io.Writer }

var unsolicited = []byte("Unsolicited response received on idle HTTP channel")

func (q quiet) Write(p []byte) (int, error) {
	if i := bytes.Index(p, unsolicited); i >= 0 {
		_, err := q.Writer.Write(append(p[:i+len(unsolicited):i+len(unsolicited)], '\n'))
		return len(p), err
	}
	return q.Writer.Write(p)
}

// Quiet wraps the standard logger, once. It is to be called whenever a handler is set up or given up, because Caddy
// redirects the standard logger right before the former, and right before the latter gives it back.
func Quiet() {
	if out := log.Writer(); out != nil {
		if _, done := out.(quiet); !done {
			log.SetOutput(quiet{out})
		}
	}
}

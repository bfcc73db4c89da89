package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// NewHandlerLog returns a log that gives each record to h: at slog.LevelInfo, or
// slog.LevelWarn if the outcome is not OK or the event is no operation. The
// attributes have the names that the members of a line have. The last one,
// "record", is the whole line: take these strings out of what h wrote, put one
// below the other, and that is what [Verify] reads.
//
// h must be enabled for both levels; a record that it does not want is not
// recorded. An error of h leaves open whether it has written the record, and so
// the record is handed to it again: better twice than not at all.
//
// A new chain begins, unless [LogOptions.After] continues one.
func NewHandlerLog(h slog.Handler, opts *LogOptions) *Log { return newLog(&handlerSink{h}, opts) }

type handlerSink struct{ h slog.Handler }

func (s *handlerSink) append(ctx context.Context, entries []entry) (int, error) {
	for i, e := range entries {
		r := e.slogRecord()
		if !s.h.Enabled(ctx, r.Level) {
			return i, fmt.Errorf("the slog handler is not enabled for level %v", r.Level)
		}
		if err := s.h.Handle(ctx, r); err != nil {
			return i, errors.Join(errors.New("the slog handler failed"), err)
		}
	}
	return len(entries), nil
}

func (s *handlerSink) close() error { return nil }

func (e entry) slogRecord() slog.Record {
	r := e.record
	level, message := slog.LevelInfo, "vault operation"
	if r.Event != EventOperation {
		level, message = slog.LevelWarn, "audit event"
	} else if r.Outcome != OutcomeOK {
		level = slog.LevelWarn
	}
	out := slog.NewRecord(r.Time, level, message, 0)
	out.AddAttrs(slog.Uint64("seq", e.head.Seq), slog.String("event", clean(string(r.Event))))
	for _, a := range []struct{ name, value string }{
		{"identity", r.Identity},
		{"store", r.Store},
		{"operation", string(r.Operation)},
		{"key", r.Key},
		{"version", r.Version},
		{"outcome", string(r.Outcome)},
		{"reason", r.Reason},
		{"code", r.Code},
		{"detail", r.Detail},
		{"request", r.RequestID},
		{"vaultRequest", r.VaultRequestID},
	} {
		if a.value != "" {
			out.AddAttrs(slog.String(a.name, clean(a.value)))
		}
	}
	if r.Event == EventOperation {
		out.AddAttrs(slog.Duration("duration", max(r.Duration, 0)))
	}
	if r.Count > 0 {
		out.AddAttrs(slog.Uint64("count", r.Count))
	}
	line := e.line[:len(e.line)-1] // without the line feed
	out.AddAttrs(slog.String("record", string(line)))
	return out
}

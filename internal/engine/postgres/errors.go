package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/blockseal/blockseal/internal/engine"
)

// SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeSerialization  = "40001"
	codeDeadlock       = "40P01"
	codeUnknown        = "08007" // transaction_resolution_unknown
	codeStatement      = "40003" // statement_completion_unknown
	codeDiskFull       = "53100"
	codePrivilege      = "42501"
	codeNoTable        = "42P01"
	codeNoSchema       = "3F000"
	codeDataCorrupted  = "XX001"
	codeIndexCorrupted = "XX002"
	codeNoStatement    = "26000" // invalid_sql_statement_name
)

// notSent is an error of before anything was given to the server, or of what the server has surely
// not done.
type notSent struct {
	err   error
	final bool // nor can it be now
}

func (e notSent) Error() string { return e.err.Error() }
func (e notSent) Unwrap() error { return e.err }

// refusedBy returns the server's answer that it has not done what it was asked for: an ERROR
// leaves nothing behind. What is more severe ends the connection, and may come after a commit.
func refusedBy(err error) *pgconn.PgError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code == codeUnknown || pg.Code == codeStatement {
		return nil
	}
	severity := pg.SeverityUnlocalized
	if severity == "" {
		severity = pg.Severity
	}
	if severity != "ERROR" {
		return nil
	}
	return pg
}

// undone reports whether what ended with err has surely changed nothing.
func undone(err error) bool {
	return errors.As(err, new(notSent)) || refusedBy(err) != nil || pgconn.SafeToRetry(err)
}

// again reports whether what has changed nothing may succeed when it is tried once more: somebody
// else was in the way, or the connection was lost, or what was prepared on it was.
func again(err error) bool {
	var n notSent
	if errors.As(err, &n) && n.final {
		return false
	}
	switch code(err) {
	case codeSerialization, codeDeadlock, codeNoStatement:
		return true
	case "":
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !ours(err)
	}
	return false
}

// ours reports whether an error is what this package makes of an answer, and of no connection's.
func ours(err error) bool {
	for _, e := range []error{engine.ErrFloor, engine.ErrChanged, engine.ErrConflict, engine.ErrNotFound, engine.ErrCorrupt,
		engine.ErrClosed, engine.ErrViewEnded, engine.ErrTurnLost, engine.ErrOutcomeUnknown, errUnfit, errElsewhere, pgx.ErrNoRows} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// translate makes the server's errors those of package engine, keeping them findable.
func translate(err error) error {
	switch code(err) {
	case codeDiskFull:
		return fmt.Errorf("%w: %w", engine.ErrNoRoom, err)
	case codeDataCorrupted, codeIndexCorrupted, codeNoTable, codeNoSchema:
		return fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
	case codePrivilege:
		return fmt.Errorf("engine: this role may not do that: grant it what it needs (GrantSQL): %w", err)
	}
	return err
}

// pause waits for a random time that grows with the tries, or until ctx ends.
func pause(ctx context.Context, try int) error {
	most := time.Millisecond << min(try, 7)
	t := time.NewTimer(rand.N(most) + most/4)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

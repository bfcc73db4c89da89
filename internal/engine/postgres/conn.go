package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// tries bounds how often something is done that somebody else is in the way of.
const tries = 30

// errUnfit says that a connection's settings do not permit what an engine promises.
var errUnfit = errors.New("engine: the settings of the connection")

// errNotReplicated says of a commit that was made that a standby may not have it.
var errNotReplicated = errors.New("engine: the server did not wait until a synchronous standby has it")

// Keys of what is noted with a connection.
const (
	isFit         = "blockseal: fit"
	notReplicated = "blockseal: not replicated"
	isPrepared    = "blockseal: prepared"
)

// Configure has the connections of a pool that is made with c note a warning which PostgreSQL
// gives with the success of a commit that was not waited for: a synchronous standby may not have
// it. Such a commit is returned as engine.ErrOutcomeUnknown then; so is one with another warning of
// the same code (01000), as a trigger may raise. What c does with notices already it goes on to do.
func Configure(c *pgxpool.Config) {
	before := c.ConnConfig.OnNotice
	c.ConnConfig.OnNotice = func(pc *pgconn.PgConn, n *pgconn.Notice) {
		if n.Code == "01000" {
			pc.CustomData()[notReplicated] = true
		}
		if before != nil {
			before(pc, n)
		}
	}
}

// on calls f with a connection that answers, as far as can be told, and is fit. What comes before
// f is notSent.
func (e *Engine) on(ctx context.Context, f func(c *pgxpool.Conn) error) error {
	return e.keepOn(ctx, func(c *pgxpool.Conn) (bool, error) { return false, f(c) })
}

// keepOn is on for who may keep the connection.
func (e *Engine) keepOn(ctx context.Context, f func(c *pgxpool.Conn) (keep bool, err error)) error {
	for {
		c, err := e.pool.Acquire(ctx)
		if err != nil {
			return notSent{err: err, final: true}
		}
		if e.ofBefore(c.Conn()) || !alive(c.Conn().PgConn().Conn()) {
			_ = c.Conn().Close(ctx) // so that the pool lets go of it: there are finitely many
			c.Release()
			continue
		}
		keep := false
		if err = e.fit(ctx, c); err != nil {
			if errors.Is(err, errElsewhere) {
				_ = c.Conn().Close(ctx) // the next one may be to where it should
			}
			err = notSent{err: err}
		} else {
			keep, err = f(c)
		}
		if !keep {
			c.Release()
		}
		return err
	}
}

// fit looks at the settings of a connection, and which server it is of, once, when it is first used:
// a primary stays on its timeline.
func (e *Engine) fit(ctx context.Context, c *pgxpool.Conn) error {
	noted := c.Conn().PgConn().CustomData()
	if of, ok := noted[isFit].(server); ok {
		return e.admit(of)
	}
	var synchronous, isolation string
	var standby bool
	if err := c.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), current_setting('default_transaction_isolation'), pg_is_in_recovery()`).
		Scan(&synchronous, &isolation, &standby); err != nil {
		return err
	}
	switch {
	case standby:
		return fmt.Errorf("%w: the server is a standby, which takes no changes: connect to the primary (target_session_attrs=primary)", errUnfit)
	case synchronous == "off":
		return fmt.Errorf("%w: synchronous_commit is off, so that what is committed may be lost: set it to on, for the role or the database", errUnfit)
	case isolation != "read committed":
		return fmt.Errorf("%w: default_transaction_isolation is %q, and the floor needs read committed: set that, for the role or the database", errUnfit, isolation)
	}
	of, err := identify(ctx, c)
	if err == nil {
		err = e.admit(of)
	}
	if err != nil {
		return err
	}
	noted[isFit] = of
	return nil
}

// read does what changes nothing: it is done again on another connection if one was lost, or if what was prepared
// on it was, which may be so of each one that the pool has.
func (e *Engine) read(ctx context.Context, f func(c *pgxpool.Conn) error) error {
	return e.readOn(ctx, func(c *pgxpool.Conn) (bool, error) { return false, f(c) })
}

// readOn is read for who may keep the connection.
func (e *Engine) readOn(ctx context.Context, f func(c *pgxpool.Conn) (keep bool, err error)) error {
	for try := 0; ; try++ {
		err := e.keepOn(ctx, f)
		most := 2
		if code(err) == codeNoStatement {
			most = tries
		}
		if err == nil || try >= most || !again(err) {
			return translate(err)
		}
		if e := pause(ctx, try); e != nil {
			return e
		}
	}
}

// write makes a change. f returns an error that is notSent if the server has surely not done it;
// what it does on the connection it does in one step. If the server does not say whether it has,
// the error is engine.ErrOutcomeUnknown.
func (e *Engine) write(ctx context.Context, f func(c *pgxpool.Conn) error) error {
	for try := 0; ; try++ {
		err := e.on(ctx, func(c *pgxpool.Conn) error {
			noted := c.Conn().PgConn().CustomData()
			delete(noted, notReplicated) // of somebody else's, who shares the pool
			if err := f(c); err != nil {
				return err
			}
			if noted[notReplicated] == true {
				return fmt.Errorf("%w: %w", engine.ErrOutcomeUnknown, errNotReplicated)
			}
			return nil
		})
		switch {
		case err == nil, ours(err):
			return err
		case !undone(err):
			return fmt.Errorf("%w: %w", engine.ErrOutcomeUnknown, err)
		case try >= tries || !again(err):
			return translate(err)
		}
		if e := pause(ctx, try); e != nil {
			return errors.Join(e, translate(err))
		}
	}
}

// writeAgain is write for what may as well be done twice: whether it was done need not be known.
func (e *Engine) writeAgain(ctx context.Context, f func(c *pgxpool.Conn) error) error {
	for try := 0; ; try++ {
		err := e.write(ctx, f)
		if !errors.Is(err, engine.ErrOutcomeUnknown) || ctx.Err() != nil || try >= 2 {
			return err
		}
	}
}

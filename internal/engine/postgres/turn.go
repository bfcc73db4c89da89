package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// turns are those that an engine has: advisory locks of one session, which the server takes back
// when the session ends, as it does with its process. The connection is had for as long as a turn is.
type turns struct {
	free chan struct{}   // has one element while nobody uses what follows
	c    *pgxpool.Conn   // nil: no turn is had
	held map[int64]*turn // by the partition's number
}

func newTurns() turns {
	return turns{free: make(chan struct{}, 1), held: map[int64]*turn{}}
}

// turn is one that is had.
type turn struct {
	key int64 // of the lock
	// session is the number, which is random, of another lock that is taken with it. The session that has both
	// is the one that took them. The number of the server's process would not say that: it is given again; and
	// when a process began a role sees of its own sessions alone.
	session int64
}

// turnKey is the number of the lock for a partition's turn: 8 bytes of a SHA-256 of what it is of.
// All programs that share a database have the numbers in common; another one's lock of the same
// number would only make somebody wait.
func turnKey(schema string, part int64) int64 {
	b := append([]byte("blockseal turn\x00"), schema...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append(b, 0), uint64(part)))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// turnPause is how often it is tried to get a turn that somebody has, as [pause] has it: some
// ten times a second. To wait for the lock on the server would keep a snapshot there meanwhile.
const turnPause = 7

// Turn implements [engine.Turner].
//
// A turn that is lost with its connection is had by somebody else, perhaps, before who had it knows.
// So a Replace, and a RefuseKEKs, looks, in its transaction and after it has locked the table, whether
// the session has the lock; and who is given a turn waits until the transactions that had the table
// locked then have ended. Such a change is one of those, or has looked later, and was refused.
func (p *partition) Turn(ctx context.Context) (release func(), err error) {
	for {
		if err := p.e.ready(ctx); err != nil {
			return nil, err
		}
		t, err := p.e.tryTurn(ctx, p.number)
		if err != nil {
			return nil, translate(err)
		}
		if t != nil {
			if err := p.e.drain(ctx); err != nil {
				p.e.endTurn(p.number, t)
				return nil, err
			}
			p.turn.Store(t)
			return func() { p.turn.CompareAndSwap(t, nil); p.e.endTurn(p.number, t) }, nil
		}
		if err := pause(ctx, turnPause); err != nil {
			return nil, err
		}
	}
}

// hasTurn scans the answer to whether a turn is still had.
func hasTurn(r pgx.Row) error {
	var had bool
	if err := r.Scan(&had); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if !had {
		return fmt.Errorf("%w with its connection to the server; call the operation again", engine.ErrTurnLost)
	}
	return nil
}

// tryTurn returns a turn, or nil if somebody has it.
func (e *Engine) tryTurn(ctx context.Context, part int64) (*turn, error) {
	s := &e.turns
	select {
	case s.free <- struct{}{}:
		defer func() { <-s.free }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.held[part] != nil {
		return nil, nil
	}
	t := &turn{key: turnKey(e.schema, part), session: rand.Int64()}
	try := func(ctx context.Context, c *pgxpool.Conn) (got bool, err error) {
		err = c.QueryRow(ctx, e.sql.turn, t.key, t.session).Scan(&got)
		return got, err
	}
	var got bool
	var err error
	if s.c != nil {
		// The end of ctx would close the connection, and with it end the turns of others.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		if got, err = try(bounded, s.c); err != nil {
			s.lose(bounded)
		}
		cancel()
	}
	if s.c == nil { // also if it just ended: another one serves
		err = e.readOn(ctx, func(c *pgxpool.Conn) (keep bool, err error) {
			if got, err = try(ctx, c); got {
				s.c = c
			} else if err != nil {
				_ = c.Conn().Close(ctx) // it may have got the lock
			}
			return got, err
		})
	}
	if err != nil || !got {
		return nil, err
	}
	s.held[part] = t
	return t, nil
}

// lose gives all turns back with their connection. Who has one finds that out by Replace.
func (s *turns) lose(ctx context.Context) {
	_ = s.c.Conn().Close(ctx)
	s.c.Release()
	s.c = nil
	clear(s.held)
}

// endTurn gives a turn back, if it was not lost.
func (e *Engine) endTurn(part int64, t *turn) {
	s := &e.turns
	s.free <- struct{}{}
	defer func() { <-s.free }()
	if s.held[part] != t {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTime)
	defer cancel()
	var had bool
	if err := s.c.QueryRow(ctx, e.sql.endTurn, t.key, t.session).Scan(&had); err != nil || !had {
		s.lose(ctx)
		return
	}
	if delete(s.held, part); len(s.held) == 0 {
		s.c.Release()
		s.c = nil
	}
}

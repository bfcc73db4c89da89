package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/postgres"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// onPostgres is the engine on PostgreSQL beside what a program would do without it: a table of ids
// and data, on the same server through the same driver. Nothing is sealed in either: what is
// compared is what a row with a record, and the floor, cost the server and the network.
type onPostgres struct {
	pool *pgxpool.Pool // of plain pgx
	e    *postgres.Engine
	p    engine.Partition
	ids  [][]byte
	data []byte
}

const (
	postgresRows   = 2000
	postgresBlock  = 4096
	postgresRecord = 100 // about a DEK record
	postgresBatch  = 100
	postgresTurn   = 20 // operations of each connection in a turn; of batches one
)

var postgresConnections = []int{1, 8, 32}

const (
	plainPut = `insert into plain values ($1, $2) on conflict (id) do update set data = excluded.data`
	plainAll = `insert into plain select * from unnest($1::bytea[], $2::bytea[]) on conflict (id) do update set data = excluded.data`
)

// newPostgres returns both with the same rows. The server syncs nothing, or each commit would take
// what the disk takes, in both alike.
func newPostgres(b *testing.B, connections int) *onPostgres {
	ctx := context.Background()
	s := pgserver.Run(b, fmt.Sprint("max_connections=", 100+connections))
	connect := func() *pgxpool.Pool {
		pool, err := pgxpool.New(ctx, s.Conn("postgres", fmt.Sprintf("pool_max_conns=%d", connections+2)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		return pool
	}
	o := &onPostgres{pool: connect(), data: random(postgresBlock)}
	e, err := postgres.New(ctx, connect(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	o.e, o.p = e, e.Partition(1)
	if err := o.p.RaiseFloor(ctx, 1); err != nil {
		b.Fatal(err)
	}
	if _, err := o.pool.Exec(ctx, `create table plain (id bytea primary key, data bytea)`); err != nil {
		b.Fatal(err)
	}
	if _, err := o.pool.Exec(ctx, `alter table plain alter column data set storage external`); err != nil {
		b.Fatal(err)
	}
	for i := range postgresRows {
		o.ids = append(o.ids, fmt.Appendf(nil, "%016d", i))
	}
	for ids := range slices.Chunk(o.ids, postgresBatch) {
		if err := errors.Join(o.put(ids...), o.plainPut(ids...)); err != nil {
			b.Fatal(err)
		}
	}
	return o
}

func (o *onPostgres) put(ids ...[]byte) error {
	b := o.p.NewBatch()
	defer b.Close()
	for _, id := range ids {
		room, err := b.Put(id, o.data[:postgresRecord], len(o.data))
		if err != nil {
			return err
		}
		copy(room, o.data)
	}
	for {
		f := o.p.Floor()
		if err := o.p.Apply(context.Background(), b, engine.Guard{Floor: f.Revision, Epoch: f.Epoch}, true); !errors.Is(err, engine.ErrFloor) {
			return err
		}
	}
}

func (o *onPostgres) plainPut(ids ...[]byte) error {
	if len(ids) == 1 {
		_, err := o.pool.Exec(context.Background(), plainPut, ids[0], o.data)
		return err
	}
	_, err := o.pool.Exec(context.Background(), plainAll, ids, slices.Repeat([][]byte{o.data}, len(ids)))
	return err
}

func (o *onPostgres) get(id []byte, row *engine.Row) error {
	if err := o.p.Get(context.Background(), id, engine.Both, row); err != nil || !bytes.Equal(row.Sealed, o.data) {
		return errors.Join(err, fmt.Errorf("%d bytes", len(row.Sealed)))
	}
	return nil
}

func (o *onPostgres) plainGet(id []byte, _ *engine.Row) error {
	var data []byte
	if err := o.pool.QueryRow(context.Background(), `select data from plain where id = $1`, id).Scan(&data); err != nil || !bytes.Equal(data, o.data) {
		return errors.Join(err, fmt.Errorf("%d bytes", len(data)))
	}
	return nil
}

// at calls f at once on as many goroutines as there are connections, with ids at random.
func (o *onPostgres) at(connections, turn int, f func(id []byte, row *engine.Row) error) func() error {
	return func() error {
		var all sync.WaitGroup
		failed := make(chan error, connections)
		for range connections {
			all.Add(1)
			go func() {
				defer all.Done()
				var row engine.Row
				defer row.Release()
				for range turn {
					if err := f(o.ids[rand.IntN(len(o.ids))], &row); err != nil {
						failed <- err
						return
					}
				}
			}()
		}
		all.Wait()
		close(failed)
		return <-failed
	}
}

// byConnections runs both in turns. An operation is that of each connection, some times over.
func byConnections(b *testing.B, turn int, ours, plain func(o *onPostgres) func(id []byte, row *engine.Row) error) {
	for _, n := range postgresConnections {
		b.Run(fmt.Sprintf("connections=%d", n), func(b *testing.B) {
			o := newPostgres(b, n)
			turns(b, 1, o.at(n, turn, ours(o)), "pgx", o.at(n, turn, plain(o)))
		})
	}
}

func BenchmarkPostgresPut(b *testing.B) {
	byConnections(b, postgresTurn, func(o *onPostgres) func([]byte, *engine.Row) error {
		return func(id []byte, _ *engine.Row) error { return o.put(id) }
	}, func(o *onPostgres) func([]byte, *engine.Row) error {
		return func(id []byte, _ *engine.Row) error { return o.plainPut(id) }
	})
}

func BenchmarkPostgresGet(b *testing.B) {
	byConnections(b, postgresTurn, func(o *onPostgres) func([]byte, *engine.Row) error { return o.get },
		func(o *onPostgres) func([]byte, *engine.Row) error { return o.plainGet })
}

// A batch is of neighbours, as the ids of one that is loaded are.
func BenchmarkPostgresBatch(b *testing.B) {
	from := func(o *onPostgres, id []byte) [][]byte {
		at, _ := slices.BinarySearchFunc(o.ids, id, bytes.Compare)
		at = min(at, len(o.ids)-postgresBatch)
		return o.ids[at : at+postgresBatch]
	}
	byConnections(b, 1, func(o *onPostgres) func([]byte, *engine.Row) error {
		return func(id []byte, _ *engine.Row) error { return o.put(from(o, id)...) }
	}, func(o *onPostgres) func([]byte, *engine.Row) error {
		return func(id []byte, _ *engine.Row) error {
			err := o.plainPut(from(o, id)...)
			for deadlocked(err) { // of two that begin at different ids
				err = o.plainPut(from(o, id)...)
			}
			return err
		}
	})
}

func deadlocked(err error) bool {
	var s interface{ SQLState() string }
	return errors.As(err, &s) && s.SQLState() == "40P01"
}

// A scan of all blocks beside keyset queries of 1,000 rows.
func BenchmarkPostgresScan(b *testing.B) {
	o := newPostgres(b, 1)
	ctx := context.Background()
	turns(b, 1, func() error {
		c, err := o.p.Cursor(ctx, engine.Sealed, nil, nil)
		if err != nil {
			return err
		}
		n := 0
		for ok := c.First(); ok; ok = c.Next() {
			n++
		}
		return errors.Join(c.Err(), c.Close(), all(n))
	}, "pgx", func() error {
		n, last := 0, []byte{}
		for {
			rows, err := o.pool.Query(ctx, `select id, data from plain where id > $1 order by id limit 1000`, last)
			if err != nil {
				return err
			}
			var id, data []byte
			tag, err := pgx.ForEachRow(rows, []any{&id, &data}, func() error { n++; last = id; return nil })
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				return all(n)
			}
		}
	})
}

func all(n int) error {
	if n != postgresRows {
		return fmt.Errorf("%d rows", n)
	}
	return nil
}

// How long it takes to raise the floor while others write, in the median and at most, and how many
// puts go on meanwhile.
func BenchmarkPostgresRaise(b *testing.B) {
	const writers = 32
	o := newPostgres(b, writers+2)
	ctx, stop := context.WithCancel(context.Background())
	var written atomic.Int64
	var writing sync.WaitGroup
	failed := make(chan error, writers)
	for range writers {
		writing.Add(1)
		go func() {
			defer writing.Done()
			for ctx.Err() == nil {
				if err := o.put(o.ids[rand.IntN(len(o.ids))]); err != nil {
					failed <- err
					return
				}
				written.Add(1)
			}
		}()
	}
	var took []time.Duration
	before := written.Load()
	for epoch := uint32(2); b.Loop(); epoch++ {
		start := time.Now()
		if err := o.p.RaiseFloor(ctx, epoch); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(written.Load()-before)/float64(len(took)), "puts/op")
	stop()
	writing.Wait()
	close(failed)
	for err := range failed {
		b.Fatal(err)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
}

package postgres

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// statements is all the SQL that an open engine uses, for its schema; what makes the schema is in
// schema.go.
type statements struct {
	// Rows.
	get, getRecord, getSealed     string
	put, putRecord, delete        string // one row, if the floor lets it pass
	putAll                        string // many, likewise
	setRow, setRecord, remove     string // in a transaction that has looked at the floor
	lockTable, lockRows, reserve  string
	chunks                        [2][2][2]string // part, direction, with an upper bound
	clearTo, clearRange, clearEnd string

	// Floor.
	seeFloor, makeFloor           string
	raise, refuse, clear          string
	lockers, running              string
	turn, hasTurn, endTurn        string // Advisory locks.
	tell, listen                  string // Notices.
	xact, status, flush           string // What became of a transaction.
	load, list                    string // Meta records.
	insert, update, upsert, erase string
	eraseAny, absent              string
}

// What a connection must be for a change, in the change itself: PostgreSQL takes the lock on the
// table before it takes the statement's snapshot, and raising the floor rests on that. Under any
// other isolation the snapshot may be an older one.
//
// It names a column so that it is part of looking for the floor's row: a condition without any would be
// a step of the plan of its own, which takes some microseconds of each change.
const readCommitted = `CASE f.part WHEN $1 THEN current_setting('transaction_isolation') END = 'read committed'`

const (
	forward, backward = 0, 1
	unbounded, below  = 0, 1
)

func newStatements(schema string) *statements {
	fragments := strings.NewReplacer(
		"{guard}", `FROM {s}.floor f WHERE f.part = $1 AND f.revision = $2 AND (f.epoch <= $3 OR $4::boolean) AND `+readCommitted,
		"{row}", `part = $1 AND id = $2 AND long = $3`,
		"{told}", `revision, epoch, keks, pg_notify('`+channel(schema)+`', $3::text)::text`,
		"{next}", `(((f.revision >> 24) + 1) << 24) | $2::bigint`)
	name := pgx.Identifier{schema}.Sanitize()
	// In an E string a backslash is one whatever standard_conforming_strings is.
	rows := `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(name+".rows") + `'::regclass`
	names := strings.NewReplacer("{s}", name, "{table}", rows)
	q := func(sql string) string { return names.Replace(fragments.Replace(sql)) }

	s := &statements{
		get:       q(`SELECT record, data, tail FROM {s}.rows WHERE {row}`),
		getRecord: q(`SELECT record FROM {s}.rows WHERE {row}`),
		getSealed: q(`SELECT data, tail FROM {s}.rows WHERE {row} AND data IS NOT NULL`),

		// The floor is read by the statement that writes: whoever raises it waits for those that
		// have the lock on the table which this one has before it looks.
		put: q(`INSERT INTO {s}.rows (part, id, long, rest, record, data, tail)
			SELECT $1::bigint, $5::bytea, $6::bytea, $7::bytea, $8::bytea, $9::bytea, $10::bytea {guard}
			ON CONFLICT (part, id, long) DO UPDATE SET record = excluded.record, data = excluded.data, tail = excluded.tail`),
		putRecord: q(`INSERT INTO {s}.rows (part, id, long, rest, record)
			SELECT $1::bigint, $5::bytea, $6::bytea, $7::bytea, $8::bytea {guard}
			ON CONFLICT (part, id, long) DO UPDATE SET record = excluded.record`),
		delete: q(`WITH f AS (SELECT f.part {guard}),
			d AS (DELETE FROM {s}.rows r USING f WHERE r.part = f.part AND r.id = $5 AND r.long = $6)
			SELECT part FROM f`),
		// In the order of the arrays, which is that of the ids, so that two of them do not wait
		// for each other. Arrays of one length are gone through together in a select list, and no row
		// of them is kept in between, as it is by functions that are joined with.
		putAll: q(`INSERT INTO {s}.rows (part, id, long, rest, record, data, tail)
			SELECT $1::bigint, unnest($5::bytea[]), unnest($6::bytea[]), unnest($7::bytea[]), unnest($8::bytea[]), unnest($9::bytea[]), unnest($10::bytea[]) {guard}
			ON CONFLICT (part, id, long) DO UPDATE SET record = excluded.record, data = excluded.data, tail = excluded.tail`),

		setRow: q(`INSERT INTO {s}.rows (part, id, long, rest, record, data, tail) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (part, id, long) DO UPDATE SET record = excluded.record, data = excluded.data, tail = excluded.tail`),
		setRecord: q(`INSERT INTO {s}.rows (part, id, long, rest, record) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (part, id, long) DO UPDATE SET record = excluded.record`),
		remove:    q(`DELETE FROM {s}.rows WHERE {row}`),
		lockTable: q(`LOCK TABLE {s}.rows IN ROW EXCLUSIVE MODE`),
		// In the order of the arrays. Each row is looked up by itself, because the planner would read
		// the whole partition for a join if it thinks that there are few.
		lockRows: q(`SELECT u.at, r.record FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY u(id, long, at),
			LATERAL (SELECT record FROM {s}.rows WHERE part = $1 AND id = u.id AND long = u.long FOR UPDATE) r`),
		// A row that must not be there is made, so that nobody else makes it meanwhile.
		reserve: q(`INSERT INTO {s}.rows (part, id, long, rest, record)
			SELECT $1::bigint, u.id, u.long, u.rest, ''::bytea FROM unnest($2::bytea[], $3::bytea[], $4::bytea[]) u(id, long, rest)
			ON CONFLICT (part, id, long) DO NOTHING RETURNING id, rest`),

		clearTo:    q(`SELECT id FROM {s}.rows WHERE part = $1 AND id > $2 ORDER BY id OFFSET $3 LIMIT 1`),
		clearRange: q(`DELETE FROM {s}.rows WHERE part = $1 AND id >= $2 AND id < $3`),
		clearEnd:   q(`DELETE FROM {s}.rows WHERE part = $1 AND id >= $2`),

		seeFloor:  q(`SELECT revision, epoch, keks, NULL FROM {s}.floor WHERE part = $1`),
		makeFloor: q(`INSERT INTO {s}.floor (part, revision, epoch, keks) VALUES ($1, 1, 0, '{}') ON CONFLICT (part) DO NOTHING`),
		// Who changes a floor tells of it ($3) in the same statement.
		raise: q(`INSERT INTO {s}.floor AS f (part, revision, epoch, keks) VALUES ($1, (1::bigint << 24) | $2::bigint, $4, '{}')
			ON CONFLICT (part) DO UPDATE SET revision = {next}, epoch = greatest(f.epoch, excluded.epoch) RETURNING {told}`),
		refuse: q(`INSERT INTO {s}.floor AS f (part, revision, epoch, keks) VALUES ($1, (1::bigint << 24) | $2::bigint, 0, $4)
			ON CONFLICT (part) DO UPDATE SET revision = {next}, keks = excluded.keks RETURNING {told}`),
		clear: q(`WITH m AS (DELETE FROM {s}.meta WHERE part = $1)
			INSERT INTO {s}.floor AS f (part, revision, epoch, keks) VALUES ($1, (1::bigint << 24) | $2::bigint, 0, '{}')
			ON CONFLICT (part) DO UPDATE SET revision = {next}, epoch = 0, keks = '{}' RETURNING {told}`),
		lockers: q(`SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = {table}
			AND mode = 'RowExclusiveLock'`),
		running: q(`SELECT count(*) FROM pg_locks WHERE virtualtransaction = ANY($1::text[])
			AND (locktype = 'virtualxid' OR locktype = 'relation' AND relation = {table} AND virtualtransaction LIKE '-1/%')`),

		// The second lock, whose number is random, says that it is this session, and not a later one
		// that was given the number of its process.
		turn: q(`SELECT CASE WHEN pg_try_advisory_lock($1::bigint) THEN pg_advisory_lock($2::bigint)::text IS NOT NULL ELSE false END`),
		// The two halves of its number are what pg_locks has of an advisory lock.
		hasTurn: q(`SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND (classid, objid) IN (((($1::bigint >> 32) & 4294967295)::oid, ($1::bigint & 4294967295)::oid),
				((($2::bigint >> 32) & 4294967295)::oid, ($2::bigint & 4294967295)::oid))
			GROUP BY pid HAVING count(*) = 2`),
		endTurn: q(`SELECT pg_advisory_unlock($1::bigint) AND pg_advisory_unlock($2::bigint)`),

		tell:   q(`SELECT pg_notify('` + channel(schema) + `', $1::text)`),
		listen: `LISTEN ` + channel(schema),
		xact:   q(`SELECT pg_current_xact_id()::text`),
		status: q(`SELECT coalesce(pg_xact_status($1::text::xid8), '')`),
		// It writes to the log, so that its commit waits for whom commits wait for.
		flush: q(`SELECT pg_logical_emit_message(true, 'blockseal', '')`),

		load: q(`SELECT value, revision FROM {s}.meta WHERE part = $1 AND name = $2`),
		list: q(`SELECT name, value FROM {s}.meta WHERE part = $1 AND name >= $2 AND substring(name FROM 1 FOR $3::int) = $2 ORDER BY name`),

		insert:   q(`INSERT INTO {s}.meta (part, name, revision, value) VALUES ($1, $2, $3, $4) ON CONFLICT (part, name) DO NOTHING`),
		update:   q(`UPDATE {s}.meta SET revision = $3, value = $4 WHERE part = $1 AND name = $2 AND revision = $5`),
		upsert:   q(`INSERT INTO {s}.meta (part, name, revision, value) VALUES ($1, $2, $3, $4) ON CONFLICT (part, name) DO UPDATE SET revision = excluded.revision, value = excluded.value`),
		erase:    q(`DELETE FROM {s}.meta WHERE part = $1 AND name = $2 AND revision = $3`),
		eraseAny: q(`DELETE FROM {s}.meta WHERE part = $1 AND name = $2`),
		absent:   q(`SELECT 1 WHERE NOT EXISTS (SELECT FROM {s}.meta WHERE part = $1 AND name = $2)`),
	}
	for part, columns := range [][2]string{{"record", "NULL::bytea"}, {"data", "tail"}} {
		for direction, order := range []string{"ASC", "DESC"} {
			for bound, upper := range []string{"", "AND (id, rest) < ($6::bytea, $7::bytea)"} {
				s.chunks[part][direction][bound] = q(chunk(columns, order, upper))
			}
		}
	}
	return s
}

// byIndex keeps what goes through rows in the order of their ids on the index, within a transaction.
// Until its table was analysed, and whenever it has grown much since, the planner thinks that a
// partition has few rows, and would sort all of them for each chunk. What is sorted all the same are
// ids of one head, which is another node.
const byIndex = `set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off`

// chunk is the next rows of a walk: at most $4, and none behind that with which their values have
// $5 bytes, without their tails. The size of a value that is out of line is known without reading it.
func chunk(columns [2]string, order, upper string) string {
	return strings.NewReplacer("{v}", columns[0], "{tail}", columns[1], "{o}", order, "{upper}", upper).Replace(
		`SELECT id, rest, tail, {v} FROM (
			SELECT id, rest, tail, {v}, sum(octet_length({v})) OVER (ORDER BY id {o}, rest {o} ROWS UNBOUNDED PRECEDING) - octet_length({v}) AS before FROM (
				SELECT id, rest, {tail} AS tail, {v} FROM {s}.rows WHERE part = $1 AND (id, rest) >= ($2::bytea, $3::bytea) {upper} AND {v} IS NOT NULL
				ORDER BY id {o}, rest {o} LIMIT $4) c
			) d WHERE before < $5 ORDER BY id {o}, rest {o}`)
}

package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/blockseal/blockseal/block/postgres"
	"github.com/blockseal/blockseal/internal/test/pgserver"
)

// server is the database that others run; here this program runs it. Production has its address.
type server struct{ *pgserver.Server }

const schema = "blockseal"

// startServer starts a server, and makes there what docs/postgres.md says: a role that owns the
// tables, and one that programs have.
func startServer(ctx context.Context) (_ *server, err error) {
	s, err := pgserver.Start()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	c, err := pgx.Connect(ctx, s.Conn("postgres"))
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	_, err = c.PgConn().Exec(ctx, `CREATE ROLE blocks_owner; CREATE ROLE blocks_program LOGIN; CREATE SCHEMA `+schema+` AUTHORIZATION blocks_owner; SET ROLE blocks_owner;`+
		postgres.SchemaSQL(schema)+postgres.GrantSQL(schema, "blocks_program")).ReadAll()
	if err != nil {
		return nil, err
	}
	return &server{s}, nil
}

// conn is what the processes are told.
func (s *server) conn() string { return s.Conn("blocks_program", "pool_max_conns=6") }

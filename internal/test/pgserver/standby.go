package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// NewStandby makes and starts a standby of a server that runs, from a base backup, with settings of its
// own. It follows what the server does, and takes no changes until Promote. Stop it.
func (s *Server) NewStandby(settings ...string) (standby *Server, err error) {
	standby, err = prepare(s.bin, settings)
	if standby == nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, standby.Stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	backup := standby.command("pg_basebackup", "-D", standby.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", s.Conn("postgres"))
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	return standby, standby.Restart()
}

// Promote makes a standby a primary, on a timeline of its own, and returns when it is.
func (s *Server) Promote() error {
	if out, err := s.command("pg_ctl", "promote", "-w", "-t", fmt.Sprint(int(started.Seconds())), "-D", s.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w: %s", err, out)
	}
	return nil
}

// Rewind takes back what a server that was ended has done since another one, which runs, was promoted, and
// has it come back as a standby of that. It was started with wal_log_hints=on
// and wal_keep_size=128MB. Before 16, pg_rewind finds
// nothing to do until the other one has made a checkpoint (CHECKPOINT) since it was promoted.
func (s *Server) Rewind(to *Server) error {
	if s.cmd != nil {
		return errors.New("the server is running")
	}
	// pg_rewind finishes the recovery of a server that was killed, by the settings in its file.
	file, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString("wal_log_hints = on\nwal_keep_size = 128MB\n")
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	for end := time.Now().Add(started); ; time.Sleep(50 * time.Millisecond) {
		out, err := s.command("pg_rewind", "-D", s.data(), "-R", "--no-sync", "--source-server="+to.Conn("postgres")).CombinedOutput()
		if err == nil {
			return nil
		}
		// What it has left may not yet be gone.
		if left := strings.Contains(string(out), "shared memory") || strings.Contains(string(out), "lock file"); !left || time.Now().After(end) {
			return fmt.Errorf("pg_rewind: %w: %s", err, out)
		}
	}
}

// ConnAny returns the connection string of a user for whichever of several servers is the primary, the first
// one first.
func ConnAny(user string, servers []*Server, parameters ...string) string {
	var hosts, ports []string
	for _, s := range servers {
		hosts, ports = append(hosts, s.dir), append(ports, "5432")
	}
	return fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=disable target_session_attrs=primary %s",
		strings.Join(hosts, ","), strings.Join(ports, ","), user, strings.Join(parameters, " "))
}

// Package pgserver runs a PostgreSQL server of its own for a test, a benchmark or an example: in a
// temporary directory, on a socket there, as another user where the caller is root, for whom
// PostgreSQL does not run. It is killed and started again as the test likes.
package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNone says that there is no PostgreSQL on this machine, and what to install.
var ErrNone = errors.New("there is no PostgreSQL server here: install it (apt-get install postgresql), or have pg_config in the PATH")

// Find returns the directory of the server's programs: what pg_config says, or the newest in the
// folders where distributions have it.
func Find() (bin string, err error) {
	var found []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		found = append(found, strings.TrimSpace(string(out)))
	}
	var folders []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		some, _ := filepath.Glob(pattern)
		folders = append(folders, some...)
	}
	slices.SortFunc(folders, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(found, folders...) {
		if fileThere(filepath.Join(dir, "initdb")) && fileThere(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", ErrNone
}

// version is the first number in a path, which orders the folders.
func version(dir string) (n int) {
	at := strings.IndexAny(dir, "0123456789")
	if at < 0 {
		return 0
	}
	end := at
	for end < len(dir) && dir[end] >= '0' && dir[end] <= '9' {
		end++
	}
	n, _ = strconv.Atoi(dir[at:end])
	return n
}

func fileThere(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// Server is a server that was made by Start. Its superuser is "postgres", who needs no password.
// It is not safe for concurrent use.
type Server struct {
	bin, dir string
	settings []string
	cmd      *exec.Cmd
	log      *os.File
	ended    chan struct{} // closed when cmd has been waited for
}

// Start makes a server in a new directory, with settings such as "max_connections=50", and starts
// it. Nothing is synced to the disk: what is tested is what is left by a process that is killed,
// and not by a machine. Stop it.
func Start(settings ...string) (s *Server, err error) {
	bin, err := Find()
	if err != nil {
		return nil, err
	}
	if s, err = prepare(bin, settings); s == nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	initdb := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s, s.Restart()
}

// prepare makes the directory of a server that has no data yet. With an error it returns what is to
// be stopped, if anything.
func prepare(bin string, settings []string) (*Server, error) {
	dir, err := os.MkdirTemp(base(), "pg")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, settings: append([]string{"fsync=off", "listen_addresses=", "unix_socket_directories=" + dir,
		"shared_buffers=64MB", "min_wal_size=32MB", "max_wal_size=128MB", "logging_collector=off", "max_connections=100"}, settings...)}
	if err := giveAway(dir); err != nil {
		return s, err
	}
	s.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	return s, err
}

// longest is that of the directory's path: that of a socket has 103 bytes at most, on every system.
const longest = 70

// base is where the directory is: where temporary files are, unless a path there is too long, or the
// server's user does not come by it.
func base() string {
	if dir := os.TempDir(); len(dir) <= longest && passable(dir) {
		return dir
	}
	return "/tmp"
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Socket is the path of its socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// Conn returns the connection string of a user, with parameters such as "pool_max_conns=8".
func (s *Server) Conn(user string, parameters ...string) string {
	return fmt.Sprintf("host=%s port=5432 user=%s dbname=postgres sslmode=disable %s", s.dir, user, strings.Join(parameters, " "))
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	asOther(cmd)
	return cmd
}

// started bounds how long a server may take until it answers, on a machine that does much else.
const started = 3 * time.Minute

// Restart starts a server that was killed, and returns when it answers.
func (s *Server) Restart() error {
	if s.cmd != nil {
		return errors.New("the server is running")
	}
	var last error
	said := 0 // by those before
	for end := time.Now().Add(started); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if s.cmd == nil {
			said = len(s.Log())
			args := []string{"-D", s.data(), "-p", "5432"}
			for _, set := range s.settings {
				args = append(args, "-c", set)
			}
			cmd := s.command("postgres", args...)
			cmd.Stdout, cmd.Stderr = s.log, s.log
			if err := cmd.Start(); err != nil {
				return err
			}
			ended := make(chan struct{})
			s.cmd, s.ended = cmd, ended
			go func() { _ = cmd.Wait(); close(ended) }()
		}
		select {
		case <-s.ended:
			s.cmd, last = nil, errors.New("it has ended")
			if said := s.Log()[said:]; !strings.Contains(said, "shared memory") && !strings.Contains(said, "lock file") {
				return fmt.Errorf("the server did not start: %w: %s", last, said)
			}
			continue // what the one before has left is not yet gone: its processes, their memory
		default:
		}
		// As the superuser, whom nothing keeps out; psql would be another package.
		var out []byte
		if out, last = s.command("pg_isready", "-h", s.dir, "-p", "5432", "-q").CombinedOutput(); last == nil {
			return nil
		}
		last = fmt.Errorf("%w: %s", last, out)
	}
	return fmt.Errorf("the server did not start: %w: %s", last, s.Log()[said:])
}

// Kill ends the server as a crash does: its first process has no time to say or write anything,
// and the others find that it is gone.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Quit ends the server with a word to those who are connected.
func (s *Server) Quit() error { return s.end(syscall.SIGINT) }

func (s *Server) end(how os.Signal) error {
	if s.cmd == nil {
		return nil
	}
	err := s.cmd.Process.Signal(how)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-s.ended
	s.cmd = nil
	return err
}

// Standby has a server that was ended come back as one that waits for a primary and takes no changes.
func (s *Server) Standby() error {
	return os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o644)
}

// Log is what the server has said.
func (s *Server) Log() string {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(log)
}

// Stop ends the server and removes everything of it.
func (s *Server) Stop() error {
	err := s.end(syscall.SIGKILL)
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
		s.log = nil
	}
	// Its other processes may be removing files as well.
	for range 100 {
		e := os.RemoveAll(s.dir)
		if e == nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
		if _, there := os.Stat(s.dir); there != nil {
			return err
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/seldom"
)

// asChild, if set in the environment, makes the test binary the tool itself.
const asChild = "OPERATOR_TEST_IS_THE_TOOL"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		main()
	}
	seldom.Collect()
	os.Exit(m.Run())
}

func ioctl(f *os.File, request uintptr, p unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := conn.Control(func(fd uintptr) { _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(p)) }); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// terminal is a terminal of which the test has a person's side.
type terminal struct {
	t      *testing.T
	person *os.File // what a person types, and sees
	tty    *os.File
	seen   chan []byte
	shown  []byte
	ended  chan struct{} // closed when the tool that was started has ended
}

func newTerminal(t *testing.T) *terminal {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals to be had: ", err)
	}
	t.Cleanup(func() { person.Close() })
	var unlock, n int32
	require.NoError(t, ioctl(person, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)))
	require.NoError(t, ioctl(person, syscall.TIOCGPTN, unsafe.Pointer(&n)))
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { tty.Close() })
	term := &terminal{t: t, person: person, tty: tty, seen: make(chan []byte, 100)}
	go func() {
		defer close(term.seen)
		for {
			b := make([]byte, 1<<10)
			n, err := person.Read(b)
			if n > 0 {
				term.seen <- b[:n]
			}
			if err != nil {
				return // the test has closed it
			}
		}
	}()
	return term
}

// settings is the terminal's, echo among them.
func (m *terminal) settings() (s syscall.Termios) {
	require.NoError(m.t, ioctl(m.tty, syscall.TCGETS, unsafe.Pointer(&s)))
	return s
}

func (m *terminal) echoes() bool { return m.settings().Lflag&syscall.ECHO != 0 }

// start runs the tool on the terminal. Its standard input and output are elsewhere.
func (m *terminal) start(g *rig, args ...string) (*exec.Cmd, *bytes.Buffer) {
	exe, err := os.Executable()
	require.NoError(m.t, err)
	cmd := exec.CommandContext(m.t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asChild+"=yes", "BLOCKSEAL_VAULT="+g.path("vault"), "BLOCKSEAL_PASSPHRASE=", "BLOCKSEAL_AUDIT=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.ExtraFiles = []*os.File{m.tty}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	require.NoError(m.t, cmd.Start())
	m.ended = make(chan struct{})
	go func() {
		cmd.Wait() // its status is looked at by who waits for ended
		close(m.ended)
	}()
	return cmd, &out
}

// asked waits until the tool asks, and does not show what is typed any more.
func (m *terminal) asked(prompt string) {
	for !strings.Contains(string(m.shown), prompt) {
		select {
		case b := <-m.seen:
			m.shown = append(m.shown, b...)
		case <-m.ended:
			require.Fail(m.t, "the tool has ended without asking", "%s", m.shown)
		}
	}
	m.shown = nil
	for last := time.Now().Add(time.Minute); m.echoes(); { // the prompt is there just before
		require.True(m.t, time.Now().Before(last), "what is typed is shown")
		runtime.Gosched()
	}
}

func (m *terminal) types(s string) {
	_, err := io.WriteString(m.person, s)
	require.NoError(m.t, err)
}

// A person's passphrase is not shown, and the terminal is as it was afterwards: when it
// was typed, when the tool is interrupted from the terminal, and when it is told to end.
func TestPromptTerminal(t *testing.T) {
	g := emptyRig(t)
	g.ok("vault", "init") // as the tool itself takes it
	pass := g.env["BLOCKSEAL_PASSPHRASE"]
	for name, c := range map[string]struct {
		act    func(m *terminal, cmd *exec.Cmd)
		status int
		says   string
	}{
		"typed":       {func(m *terminal, _ *exec.Cmd) { m.types(pass + "\n") }, exitOK, "purge protection"},
		"wrong":       {func(m *terminal, _ *exec.Cmd) { m.types("not it\n") }, exitRefused, "wrong passphrase"},
		"interrupted": {func(m *terminal, _ *exec.Cmd) { m.types("half of i\x03") }, exitInterrupted, "context canceled"},
		"terminated": {func(m *terminal, cmd *exec.Cmd) {
			require.NoError(m.t, cmd.Process.Signal(syscall.SIGTERM))
		}, exitInterrupted, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTerminal(t)
			before := m.settings()
			require.True(t, m.echoes())
			cmd, out := m.start(g, "vault", "info")
			m.asked("passphrase of the vault " + g.path("vault") + ": ")
			c.act(m, cmd)
			<-m.ended
			require.Equal(t, c.status, cmd.ProcessState.ExitCode(), "%s", out)
			require.Contains(t, out.String(), c.says)
			require.Equal(t, before, m.settings(), "the terminal is as it was")

			// All that was shown is the end of the line.
			m.types("\n")
			for !bytes.Contains(m.shown, []byte("\n")) {
				m.shown = append(m.shown, <-m.seen...)
			}
			for _, typed := range []string{pass, "not it", "half"} {
				require.NotContains(t, string(m.shown)+out.String(), typed)
			}
		})
	}
}

// A new passphrase is typed twice, unseen both times.
func TestPromptTerminalTwice(t *testing.T) {
	g := emptyRig(t)
	m := newTerminal(t)
	cmd, out := m.start(g, "vault", "init")
	m.asked(": ")
	m.types("a passphrase that is new\n")
	m.asked("once more: ")
	m.types("a passphrase that is new\n")
	<-m.ended
	require.Equal(t, exitOK, cmd.ProcessState.ExitCode(), "%s", out)
	require.True(t, m.echoes())
	g.env["BLOCKSEAL_PASSPHRASE"] = "a passphrase that is new"
	g.ok("vault", "info")
}

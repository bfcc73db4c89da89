//go:build !race

// What a browser shows: no goroutine of the page is ours, and Chromium is slow enough.

package blockhttp_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// browser is a headless Chromium that these tests share: to start one takes longer than to look at
// a page. It is spoken to through two pipes, in messages of JSON that each end with a zero byte
// (https://chromedevtools.github.io/devtools-protocol/).
type browser struct {
	cmd      *exec.Cmd
	dir      string // its profile
	stderr   bytes.Buffer
	to, from *os.File
	messages *bufio.Reader
	last     int // number of a call
}

var startBrowser = sync.OnceValues(func() (*browser, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return launch(path)
		}
	}
	return nil, nil
})

var started bool

func TestMain(m *testing.M) {
	code := m.Run()
	if started {
		if b, err := startBrowser(); err == nil && b != nil {
			b.close()
		}
	}
	os.Exit(code)
}

func newBrowser(t *testing.T) *browser {
	started = true
	b, err := startBrowser()
	require.NoError(t, err)
	if b == nil {
		t.Skip("NOT TESTED: the status page in a browser, because chromium is not installed (apt-get install chromium)")
	}
	return b
}

func launch(path string) (b *browser, err error) {
	b = &browser{}
	if b.dir, err = os.MkdirTemp("", "chromium"); err != nil {
		return nil, err
	}
	hears, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	b.to, b.from, b.messages = to, from, bufio.NewReader(from)
	b.cmd = exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
		"--user-data-dir="+b.dir)
	b.cmd.Stderr = &b.stderr
	b.cmd.ExtraFiles = []*os.File{hears, says} // 3 and 4, as the protocol has it
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	hears.Close()
	says.Close()
	return b, nil
}

func (b *browser) close() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	_ = os.RemoveAll(b.dir)
}

// tab is a page that is looked at.
type tab struct {
	t          *testing.T
	b          *browser
	session    string
	complaints []string // what the page had to complain of
	loaded     bool
}

// message is an answer, which has an ID, or an event.
type message struct {
	ID        int             `json:"id"`
	Method    string          `json:"method"`
	SessionID string          `json:"sessionId"`
	Params    json.RawMessage `json:"params"`
	Result    json.RawMessage `json:"result"`
	Error     json.RawMessage `json:"error"`
}

// open shows a page in a window of the given size.
func (b *browser) open(t *testing.T, url string, width, height int) *tab {
	t.Helper()
	p := &tab{t: t, b: b}
	var target struct{ TargetID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	t.Cleanup(func() {
		p.session = ""
		p.call("Target.closeTarget", map[string]any{"targetId": target.TargetID}, nil)
	})
	var attached struct{ SessionID string }
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	for _, domain := range []string{"Page", "Log", "Runtime"} {
		p.call(domain+".enable", nil, nil)
	}
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	var to struct{ ErrorText string }
	p.call("Page.navigate", map[string]any{"url": url}, &to)
	require.Empty(t, to.ErrorText)
	for {
		for !p.loaded {
			p.next()
		}
		p.loaded = false // it may have been about:blank, which was there before
		if p.evaluate(`document.URL == "about:blank" ? "" : document.readyState`) == "complete" {
			return p
		}
	}
}

// call calls a method and waits for its answer.
func (p *tab) call(method string, params map[string]any, result any) {
	p.t.Helper()
	p.b.last++
	id := p.b.last
	call := map[string]any{"id": id, "method": method}
	if params != nil {
		call["params"] = params
	}
	if p.session != "" {
		call["sessionId"] = p.session
	}
	m, err := json.Marshal(call)
	require.NoError(p.t, err)
	_, err = p.b.to.Write(append(m, 0))
	require.NoError(p.t, err, "%s", &p.b.stderr)
	for {
		if m := p.next(); m.ID == id {
			require.Empty(p.t, string(m.Error), method)
			if result != nil {
				require.NoError(p.t, json.Unmarshal(m.Result, result))
			}
			return
		}
	}
}

// next reads a message. What it says of the page is kept.
func (p *tab) next() (m message) {
	p.t.Helper()
	require.NoError(p.t, p.b.from.SetReadDeadline(time.Now().Add(10*time.Minute)))
	line, err := p.b.messages.ReadBytes(0)
	require.NoError(p.t, err, "the browser has ended")
	require.NoError(p.t, json.Unmarshal(line[:len(line)-1], &m))
	if m.SessionID != p.session || p.session == "" {
		return m
	}
	switch m.Method {
	case "Page.loadEventFired":
		p.loaded = true
	case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown":
		p.complaints = append(p.complaints, string(m.Params))
	}
	return m
}

// evaluate runs a script in the page and returns the string that it gives. The page's own policy is for
// its own scripts.
func (p *tab) evaluate(script string) string {
	p.t.Helper()
	var got struct {
		Result           struct{ Value string }
		ExceptionDetails json.RawMessage
	}
	p.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true}, &got)
	require.Empty(p.t, string(got.ExceptionDetails))
	return got.Result.Value
}

func (p *tab) dom() string { return p.evaluate("document.documentElement.outerHTML") }

// shoot photographs the page and returns the image. With -artifacts the file stays.
func (p *tab) shoot(name string) image.Image {
	p.t.Helper()
	var got struct{ Data []byte }
	p.call("Page.captureScreenshot", map[string]any{"format": "png"}, &got)
	require.NoError(p.t, os.WriteFile(filepath.Join(p.t.ArtifactDir(), name), got.Data, 0o600))
	img, err := png.Decode(bytes.NewReader(got.Data))
	require.NoError(p.t, err)
	return img
}

// A page that breaks its own policy is heard of, and what runs out of its card is found: what other tests
// do not find is not there.
func TestBrowserFinds(t *testing.T) {
	b := newBrowser(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		fmt.Fprintf(w, `<!DOCTYPE html><body><main style="width: 200px"><p class="card">%s</p>
<details><p style="overflow-wrap: anywhere; width: 9em">0123456789abcdef0123456789abcdef</p></details></main><script>"not run"</script>`, strings.Repeat("x", 60))
	}))
	defer server.Close()
	p := b.open(t, server.URL, 412, 900)
	require.Len(t, p.complaints, 1)
	require.Contains(t, p.complaints[0], "Content Security Policy")
	said := p.evaluate(rod)
	require.Contains(t, said, "412 by ")
	require.Contains(t, said, "wide ")
	require.Contains(t, said, "px out of p.card: xxx")
	require.Contains(t, said, "lines 2")
}

// Command mutate makes mistakes in a package, one at a time, and says which of them its
// tests do not notice.
//
//	go run ./internal/test/mutate [-run REGEXP] [-files REGEXP] [-sample 1] [-timeout 1m] PACKAGE [TESTS ...]
//
// The mistakes are those that would matter here: a call is left out (clear, Destroy, Sync),
// a condition is turned round, a comparison is off by one, "and" is "or", an error is
// dropped. The source files are not touched: the go command is given others in their place
// (-overlay). TESTS are the packages whose tests are run, by default PACKAGE's own. With -sample N it makes one
// in N mistakes, evenly over the files, for a package that has thousands.
//
// It prints each mistake that nothing noticed, and the score, and ends with status 1 if
// there is any. A mistake that changes nothing that can be seen is one of those too, so that
// the score is for a person to read. With -list it only prints the mistakes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

type config struct {
	pkg, dir string
	files    *regexp.Regexp
	tests    []string // packages
	run      string
	sample   int // one in so many is made
	timeout  time.Duration
	list     bool
}

func main() {
	c := config{}
	flag.StringVar(&c.run, "run", "", "the tests that are run, as of go test")
	files := flag.String("files", "", "the names of the source files that are looked at")
	flag.IntVar(&c.sample, "sample", 1, "make one in so many mistakes")
	flag.DurationVar(&c.timeout, "timeout", time.Minute, "how long the tests of a package may take; one that takes longer has noticed")
	flag.BoolVar(&c.list, "list", false, "print the mistakes, and make none")
	flag.Parse()
	var err error
	if c.files, err = regexp.Compile(*files); err == nil {
		if c.pkg = flag.Arg(0); c.pkg == "" {
			err = errors.New("which package? Give it its path, such as ./dek")
		}
	}
	if c.tests = flag.Args(); len(c.tests) > 1 {
		c.tests = c.tests[1:]
	}
	if err == nil {
		err = c.mutate(context.Background(), os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// outcome is what came of a mistake.
type outcome int

const (
	noticed  outcome = iota
	survived         // every test passed
	notCompiled
)

// errSurvivors says that some mistakes were not noticed.
var errSurvivors = errors.New("there are mistakes that no test noticed")

// mutate makes every mistake and writes what came of them.
func (c config) mutate(ctx context.Context, out io.Writer) error {
	files, err := c.sources(ctx)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if !c.list { // or everything would count as noticed
		if o, text, err := c.test(ctx, ""); err != nil || o != survived {
			return errors.Join(err, fmt.Errorf("the tests fail as they are: %s", text))
		}
	}
	count, n := map[outcome]int{}, 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		mutants, err := mutantsOf(filepath.Base(file), src)
		if err != nil {
			return err
		}
		for _, m := range mutants {
			if n++; n%max(c.sample, 1) != 0 {
				continue
			}
			if c.list {
				fmt.Fprintln(out, m)
				continue
			}
			overlay, err := write(scratch, file, m.apply(src))
			if err != nil {
				return err
			}
			o, _, err := c.test(ctx, overlay)
			if err != nil {
				return err
			}
			if count[o]++; o == survived {
				fmt.Fprintln(out, m)
			}
		}
	}
	if c.list {
		return nil
	}
	all := count[noticed] + count[survived]
	fmt.Fprintf(out, "%s: %d of %d mistakes were noticed (%.0f%%); %d did not compile\n",
		c.pkg, count[noticed], all, 100*float64(count[noticed])/float64(max(all, 1)), count[notCompiled])
	if count[survived] > 0 {
		return errSurvivors
	}
	return nil
}

// sources returns the package's source files that are to be looked at.
func (c config) sources(ctx context.Context) (files []string, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", `{{.Dir}}{{range .GoFiles}}{{"\n"}}{{.}}{{end}}`, c.pkg)
	cmd.Dir, cmd.Stderr = c.dir, os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", c.pkg, err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, name := range lines[1:] {
		if c.files == nil || c.files.MatchString(name) {
			files = append(files, filepath.Join(lines[0], name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no such source file", c.pkg)
	}
	return files, nil
}

// write puts a source and the overlay that gives it to the go command in file's place into a
// directory, in the place of those before.
func write(dir, file string, src []byte) (overlay string, err error) {
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, src, 0o600); err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// test runs the tests. An error is one of running them at all.
func (c config) test(ctx context.Context, overlay string) (o outcome, text string, err error) {
	args := []string{"test", "-count=1", "-failfast", "-vet=off", "-timeout", c.timeout.String(), "-run", c.run}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, c.tests...)...)
	cmd.Dir = c.dir
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch text = string(b); {
	case err == nil:
		return survived, text, nil
	case !errors.As(err, &exit):
		return 0, text, err
	case strings.Contains(text, "[build failed]"):
		return notCompiled, text, nil
	}
	return noticed, text, nil
}

// Package process runs the programs under test as the platform's test helpers do: nothing in the environment but what is
// given, ports found by searching what was written to stderr, ended with SIGKILL unless a test wants SIGTERM.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Env is the whole environment of a program.
type Env map[string]string

// With is a copy with more, or other, variables.
func (e Env) With(changes Env) Env {
	merged := make(Env, len(e)+len(changes))
	for key, value := range e {
		merged[key] = value
	}
	for key, value := range changes {
		merged[key] = value
	}
	return merged
}

func (e Env) list() []string {
	list := make([]string, 0, len(e))
	for key, value := range e {
		list = append(list, key+"="+value)
	}
	sort.Strings(list)
	return list
}

// BinariesVariable names the folder with the programs; unset, they are built.
const BinariesVariable = "INTEROP_BINARIES"

var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(BinariesVariable); dir != "" {
		return dir, nil
	}
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..", "..", "..")
	build := exec.Command("cargo", "build", "--quiet", "--locked", "-p", "loggregator", "--bins")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cargo build: %w\n%s", err, output)
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(root, "target")
	}
	return filepath.Join(target, "debug"), nil
})

// Path is where the program with this name stands; it is built if it has to be.
func Path(name string) (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return path, nil
}

// Process is a program that was started.
type Process struct {
	command *exec.Cmd
	output  output
	ended   chan struct{}
}

// Start starts the program with exactly this environment and no working directory of note.
func Start(program string, env Env, arguments ...string) (*Process, error) {
	path, err := Path(program)
	if err != nil {
		return nil, err
	}
	process := &Process{command: exec.Command(path, arguments...), ended: make(chan struct{})}
	process.output.changed = make(chan struct{})
	process.command.Env = env.list()
	process.command.Dir = os.TempDir()
	process.command.Stderr = &process.output
	// Nothing that a test started may outlive it, even when the test itself is killed.
	process.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.start(); err != nil {
		return nil, err
	}
	return process, nil
}

func (p *Process) start() error {
	started := make(chan error)
	go func() {
		// The death signal is bound to the thread that started the child.
		runtime.LockOSThread()
		err := p.command.Start()
		started <- err
		if err == nil {
			// Its outcome is in ProcessState.
			_ = p.command.Wait()
			close(p.ended)
		}
	}()
	return <-started
}

// Port waits until stderr holds a line that the pattern finds, and is its first group. The platform's helpers give ten
// seconds.
func (p *Process) Port(pattern *regexp.Regexp) (int, error) {
	deadline := time.After(20 * time.Second)
	for {
		text, changed := p.output.read()
		if match := pattern.FindStringSubmatch(text); match != nil {
			return strconv.Atoi(match[1])
		}
		select {
		case <-changed:
		case <-p.ended:
			text, _ = p.output.read()
			if match := pattern.FindStringSubmatch(text); match != nil {
				return strconv.Atoi(match[1])
			}
			return 0, fmt.Errorf("%s ended (%v) before %q:\n%s", p.command.Path, p.command.ProcessState, pattern, text)
		case <-deadline:
			return 0, fmt.Errorf("%s does not say %q:\n%s", p.command.Path, pattern, text)
		}
	}
}

// Stderr is what it wrote so far.
func (p *Process) Stderr() string {
	text, _ := p.output.read()
	return text
}

// Kill ends it with SIGKILL and waits for the end.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// Terminate asks it to end with SIGTERM and waits for the end; the error tells a bad one.
func (p *Process) Terminate(patience time.Duration) error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait(patience)
}

// Wait waits for the end; an exit status other than 0 is an error.
func (p *Process) Wait(patience time.Duration) error {
	select {
	case <-p.ended:
	case <-time.After(patience):
		return errors.New("still running after " + patience.String())
	}
	if !p.command.ProcessState.Success() {
		return fmt.Errorf("%s\n%s", p.command.ProcessState, p.Stderr())
	}
	return nil
}

// Ended is closed when the program is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// output collects what a program writes and wakes who waits for more.
type output struct {
	lock    sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(data []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(data)
}

func (o *output) read() (string, <-chan struct{}) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.text.String(), o.changed
}

// Command probe sleeps until a signal ends it, or, as "probe connect HOST:PORT SECONDS", tries for so many seconds
// to open a TCP connection and exits 0 when one opened, 1 when none did.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 1:
		sleep()
	case len(os.Args) == 2 && os.Args[1] == "hello":
		fmt.Println("hello from a pod")
	case len(os.Args) == 4 && os.Args[1] == "connect":
		connect(os.Args[2], os.Args[3])
	default:
		fail("usage: probe | probe hello | probe connect HOST:PORT SECONDS")
	}
}

func sleep() {
	// As the first process of a pod it is handed the orphans of every container that shares its process namespace.
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}

func connect(address, seconds string) {
	patience, err := strconv.Atoi(seconds)
	if err != nil {
		fail("not a number of seconds: " + seconds)
	}
	deadline := time.Now().Add(time.Duration(patience) * time.Second)
	for {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = connection.Close()
			fmt.Println("connected to " + address)
			return
		}
		if time.Now().After(deadline) {
			fail(err.Error())
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	// Kubernetes shows this file as the container's termination message; outside a pod it cannot be written.
	_ = os.WriteFile("/dev/termination-log", []byte(message), 0o644)
	os.Exit(1)
}

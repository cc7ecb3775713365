/* What the banner measurement asks: says an SSH banner to whoever connects, on all addresses, for as long as it runs.

   banner_server PORT: prints "ready" when it listens. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    static const char banner[] = "SSH-2.0-OpenSSH_9.2\r\n";
    int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(words[1]) : 0)};
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(door, (struct sockaddr *)&here, sizeof here) || listen(door, 4096)) { perror("listen"); return 1; }
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = door}, ready[512];
    epoll_ctl(poll, EPOLL_CTL_ADD, door, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int found = epoll_wait(poll, ready, 512, -1);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.fd != door) { /* the other side has gone */
                close(ready[i].data.fd);
                continue;
            }
            for (int one; (one = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                if (write(one, banner, sizeof banner - 1) < 0) { close(one); continue; }
                event = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.fd = one};
                epoll_ctl(poll, EPOLL_CTL_ADD, one, &event);
            }
        }
    }
}

/* The floor of the icmp measurement: one unprivileged socket, sendmmsg and recvmmsg, nothing else.

   icmp HOSTS ROUNDS: asks 127.1.0.0, 127.1.0.1, ... each ROUNDS times; prints replies, CPU and wall time as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 128

struct packet { struct icmphdr head; uint64_t nonce, number; };

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static double wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static long drain(int ping, uint64_t nonce, unsigned char *seen, uint64_t first, long hosts) {
    static struct packet packets[BATCH];
    static struct mmsghdr heads[BATCH];
    static struct iovec parts[BATCH];
    long fresh = 0;
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){&packets[i], sizeof packets[i]};
            heads[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
        }
        int got = recvmmsg(ping, heads, BATCH, MSG_DONTWAIT, NULL);
        if (got <= 0) return fresh;
        for (int i = 0; i < got; i++) {
            uint64_t index = packets[i].number - first;
            if (packets[i].head.type == ICMP_ECHOREPLY && packets[i].nonce == nonce && index < (uint64_t)hosts && !seen[index]) {
                seen[index] = 1;
                fresh++;
            }
        }
    }
}

int main(int count, char **words) {
    long hosts = atol(words[1]), rounds = atol(words[2]), replies = 0;
    int ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), size = 8 << 20;
    if (count < 3 || ping < 0) { perror("socket"); return 1; }
    if (setsockopt(ping, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size)) setsockopt(ping, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct sockaddr_in *to = calloc(hosts, sizeof *to);
    struct packet *packets = calloc(hosts, sizeof *packets);
    struct iovec *parts = calloc(hosts, sizeof *parts);
    struct mmsghdr *heads = calloc(hosts, sizeof *heads);
    unsigned char *seen = malloc(hosts);
    uint64_t nonce = (uint64_t)time(NULL) << 32 | 4711;
    for (long i = 0; i < hosts; i++) {
        to[i].sin_family = AF_INET;
        to[i].sin_addr.s_addr = htonl(0x7f010000 + i);
        packets[i].head.type = ICMP_ECHO;
        packets[i].nonce = nonce;
        parts[i] = (struct iovec){&packets[i], sizeof packets[i]};
        heads[i].msg_hdr = (struct msghdr){.msg_name = &to[i], .msg_namelen = sizeof to[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    double cpu_before = cpu(), wall_before = wall();
    for (long round = 0; round < rounds; round++) {
        uint64_t first = (uint64_t)round * hosts;
        long here = 0;
        memset(seen, 0, hosts);
        for (long i = 0; i < hosts; i++) {
            packets[i].number = first + i;
            packets[i].head.un.echo.sequence = htons((uint16_t)(first + i));
        }
        for (long start = 0; start < hosts; start += BATCH) {
            long wanted = hosts - start < BATCH ? hosts - start : BATCH;
            for (long sent = 0; sent < wanted;) {
                int now = sendmmsg(ping, heads + start + sent, wanted - sent, 0);
                if (now < 0) { perror("sendmmsg"); return 1; }
                sent += now;
            }
            here += drain(ping, nonce, seen, first, hosts);
        }
        struct pollfd waiting = {.fd = ping, .events = POLLIN};
        while (here < hosts && poll(&waiting, 1, 1000) > 0) here += drain(ping, nonce, seen, first, hosts);
        replies += here;
    }
    printf("{\"cpu_s\": %.6f, \"wall_s\": %.6f, \"right\": %ld}\n", cpu() - cpu_before, wall() - wall_before, replies);
    return 0;
}

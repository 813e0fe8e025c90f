/* What a program on ZooKeeper's C client (libzookeeper_mt 3.8) does, checked step by step.
 *
 *   c_client HOST:PORT ROOT      prints "ok <step>" lines; the first wrong answer ends it with exit code 1
 *
 * Every step states the return code it expects. `sync` on /cut-the-line is an ordinary sync, but the capture
 * proxy takes it as the signal to cut the connection, so that the reconnect (setWatches) is captured too.
 */
#define THREADED
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static zhandle_t *zk;
static volatile int connected, events, last_type;
static char last_path[256], root[128], path[512], other[512];
static int steps;

static void on_session(zhandle_t *h, int type, int state, const char *p, void *context) {
    (void)h; (void)p; (void)context;
    if (type == ZOO_SESSION_EVENT) connected = state == ZOO_CONNECTED_STATE;
}

static void on_watch(zhandle_t *h, int type, int state, const char *p, void *context) {
    (void)h; (void)state; (void)context;
    if (type == ZOO_SESSION_EVENT) return;
    last_type = type;
    snprintf(last_path, sizeof last_path, "%s", p ? p : "");
    events++;
}

static volatile int done_code, done;
static void on_done(int rc, const char *value, const void *data) {
    (void)value; (void)data;
    done_code = rc;
    done = 1;
}
static void on_void(int rc, const void *data) { on_done(rc, 0, data); }

static void expect(const char *step, int got, int wanted) {
    if (got != wanted) {
        printf("FAILED %s: %d (%s), expected %d (%s)\n", step, got, zerror(got), wanted, zerror(wanted));
        exit(1);
    }
    printf("ok %s\n", step);
    steps++;
}

static void wait_for(const char *step, volatile int *flag, int at_least) {
    for (int i = 0; i < 1000 && *flag < at_least; i++) usleep(10000);
    expect(step, *flag >= at_least, 1);
}

static const char *at(const char *name) {
    snprintf(path, sizeof path, "%s%s", root, name);
    return path;
}

static int make(const char *name, const char *data, int mode, char *created, int size) {
    return zoo_create(zk, at(name), data, data ? (int)strlen(data) : -1, &ZOO_OPEN_ACL_UNSAFE, mode, created, size);
}

static void creates(void) {
    struct Stat stat;
    expect("create root", zoo_create(zk, root, "r", 1, &ZOO_OPEN_ACL_UNSAFE, 0, other, sizeof other), ZOK);
    expect("create", make("/a", "one", 0, other, sizeof other), ZOK);
    expect("create again", make("/a", "one", 0, other, sizeof other), ZNODEEXISTS);
    expect("create without a parent", make("/no/x", "", 0, other, sizeof other), ZNONODE);
    expect("create null data", make("/null", 0, 0, other, sizeof other), ZOK);
    expect("create sequential", make("/seq-", "", ZOO_SEQUENCE, other, sizeof other), ZOK);
    expect("its name", strcmp(other + strlen(root), "/seq-0000000002"), 0);
    expect("create ephemeral", make("/eph", "", ZOO_EPHEMERAL, other, sizeof other), ZOK);
    expect("child of an ephemeral", make("/eph/x", "", 0, other, sizeof other), ZNOCHILDRENFOREPHEMERALS);
    expect("create ephemeral sequential", make("/eseq-", "", ZOO_EPHEMERAL | ZOO_SEQUENCE, other, sizeof other), ZOK);
    expect("create2", zoo_create2(zk, at("/two"), "22", 2, &ZOO_OPEN_ACL_UNSAFE, 0, other, sizeof other, &stat), ZOK);
    expect("create2's stat", stat.dataLength == 2 && stat.czxid == stat.mzxid && stat.version == 0, 1);
    expect("create container", zoo_create2(zk, at("/box"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, other, sizeof other, &stat), ZOK);
    expect("create with a TTL", zoo_create_ttl(zk, at("/ttl"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 600000, other, sizeof other), ZOK);
    expect("create with a TTL, sequential", zoo_create2_ttl(zk, at("/ttl-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 600000, other, sizeof other, &stat), ZOK);
}

static void reads_and_writes(void) {
    struct Stat stat;
    struct String_vector names;
    char data[64];
    int length = sizeof data;
    expect("get", zoo_get(zk, at("/a"), 0, data, &length, &stat), ZOK);
    expect("its data", length == 3 && !memcmp(data, "one", 3), 1);
    length = sizeof data;
    expect("get of null data", zoo_get(zk, at("/null"), 0, data, &length, &stat), ZOK);
    expect("its length", length, -1);
    length = sizeof data;
    expect("get of nothing", zoo_get(zk, at("/none"), 0, data, &length, &stat), ZNONODE);
    expect("set", zoo_set2(zk, at("/a"), "four", 4, 0, &stat), ZOK);
    expect("its version", stat.version, 1);
    expect("set at a stale version", zoo_set(zk, at("/a"), "x", 1, 0), ZBADVERSION);
    expect("exists", zoo_exists(zk, at("/a"), 0, &stat), ZOK);
    expect("exists not", zoo_exists(zk, at("/none"), 0, &stat), ZNONODE);
    expect("children", zoo_get_children(zk, root, 0, &names), ZOK);
    expect("their number", names.count, 9);
    deallocate_String_vector(&names);
    expect("children2", zoo_get_children2(zk, root, 0, &names, &stat), ZOK);
    expect("numChildren", stat.numChildren, 9);
    deallocate_String_vector(&names);
    expect("delete with children", zoo_delete(zk, root, -1), ZNOTEMPTY);
    expect("delete at a stale version", zoo_delete(zk, at("/a"), 7), ZBADVERSION);
    expect("delete", zoo_delete(zk, at("/two"), 0), ZOK);
    expect("delete again", zoo_delete(zk, at("/two"), -1), ZNONODE);
    done = 0;
    expect("sync", zoo_async(zk, root, on_done, 0), ZOK);
    wait_for("sync answered", &done, 1);
    expect("its code", done_code, ZOK);
    length = sizeof data;
    expect("getconfig", zoo_getconfig(zk, 0, data, &length, &stat), ZOK);
    expect("set on a bad path", zoo_set(zk, "/zookeeper/none", "", 0, -1), ZNONODE);
}

static void acls(void) {
    struct ACL_vector acl;
    struct Stat stat;
    struct ACL only_read[] = {{ZOO_PERM_READ, {"world", "anyone"}}};
    struct ACL_vector readers = {1, only_read};
    done = 0;
    expect("add auth", zoo_add_auth(zk, "digest", "u:p", 3, on_void, 0), ZOK);
    wait_for("auth answered", &done, 1);
    expect("its code", done_code, ZOK);
    expect("create for its creator", zoo_create(zk, at("/mine"), "", 0, &ZOO_CREATOR_ALL_ACL, 0, other, sizeof other), ZOK);
    expect("get ACL", zoo_get_acl(zk, at("/mine"), &acl, &stat), ZOK);
    expect("auth became digest", acl.count == 1 && !strcmp(acl.data[0].id.scheme, "digest")
        && !strcmp(acl.data[0].id.id, "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="), 1);
    deallocate_ACL_vector(&acl);
    expect("set ACL", zoo_set_acl(zk, at("/mine"), 0, &readers), ZOK);
    expect("set ACL without ADMIN", zoo_set_acl(zk, at("/mine"), -1, &readers), ZNOAUTH);
    expect("set without WRITE", zoo_set(zk, at("/mine"), "x", 1, -1), ZNOAUTH);
    struct ACL nobody[] = {{31, {"nosuch", "x"}}};
    struct ACL_vector invalid = {1, nobody};
    expect("an invalid ACL", zoo_create(zk, at("/bad"), "", 0, &invalid, 0, other, sizeof other), ZINVALIDACL);
}

static void multis(void) {
    zoo_op_t ops[5];
    zoo_op_result_t results[5];
    struct Stat stat;
    char a[300], b[300], made[300];
    snprintf(a, sizeof a, "%s/m", root);
    snprintf(b, sizeof b, "%s/m/b", root);
    zoo_create_op_init(&ops[0], a, "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_create_op_init(&ops[1], b, "2", 1, &ZOO_OPEN_ACL_UNSAFE, 0, 0, 0);
    zoo_set_op_init(&ops[2], a, "3", 1, 0, &stat);
    zoo_check_op_init(&ops[3], a, 1);
    zoo_delete_op_init(&ops[4], b, 0);
    expect("multi", zoo_multi(zk, 5, ops, results), ZOK);
    expect("its stat", stat.version, 1);
    zoo_create_op_init(&ops[0], b, "2", 1, &ZOO_OPEN_ACL_UNSAFE, 0, 0, 0);
    zoo_check_op_init(&ops[1], a, 9);
    zoo_delete_op_init(&ops[2], b, 0);
    expect("multi that fails", zoo_multi(zk, 3, ops, results), ZBADVERSION);
    expect("before the failure", results[0].err, ZOK);
    expect("the failure", results[1].err, ZBADVERSION);
    expect("behind the failure", results[2].err, ZRUNTIMEINCONSISTENCY);
    expect("nothing was done", zoo_exists(zk, b, 0, &stat), ZNONODE);
}

static void watches(void) {
    struct Stat stat;
    struct String_vector names;
    char data[64];
    int length = sizeof data;
    events = 0;
    expect("watch for a create", zoo_wexists(zk, at("/w"), on_watch, 0, &stat), ZNONODE);
    expect("create it", make("/w", "", 0, other, sizeof other), ZOK);
    wait_for("created event", &events, 1);
    expect("its type", last_type, ZOO_CREATED_EVENT);
    expect("watch data", zoo_wget(zk, at("/w"), on_watch, 0, data, &length, &stat), ZOK);
    expect("watch children", zoo_wget_children(zk, at("/w"), on_watch, 0, &names), ZOK);
    deallocate_String_vector(&names);
    expect("change it", zoo_set(zk, at("/w"), "x", 1, -1), ZOK);
    wait_for("changed event", &events, 2);
    expect("its type", last_type, ZOO_CHANGED_EVENT);
    expect("create a child", make("/w/c", "", 0, other, sizeof other), ZOK);
    wait_for("children event", &events, 3);
    expect("its type", last_type, ZOO_CHILD_EVENT);
    expect("change it again, unwatched", zoo_set(zk, at("/w"), "y", 1, -1), ZOK);
    expect("watch data", zoo_wget(zk, at("/w"), on_watch, 0, data, &length, &stat), ZOK);
    expect("watch children", zoo_wget_children2(zk, at("/w"), on_watch, 0, &names, &stat), ZOK);
    deallocate_String_vector(&names);
    expect("watch for a create", zoo_wexists(zk, at("/later"), on_watch, 0, &stat), ZNONODE);
    connected = 1;
    done = 0;
    zoo_async(zk, "/cut-the-line", on_done, 0);
    wait_for("the line", &done, 1);
    wait_for("connected again", &connected, 1);
    usleep(200000);
    expect("no event so far", events, 3);
    expect("create what was awaited", make("/later", "", 0, other, sizeof other), ZOK);
    wait_for("created event behind the reconnect", &events, 4);
    expect("remove a watch", zoo_remove_watches(zk, at("/w"), ZWATCHTYPE_DATA, on_watch, 0, 0), ZOK);
    expect("remove it again", zoo_remove_watches(zk, at("/w"), ZWATCHTYPE_DATA, on_watch, 0, 0), ZNOWATCHER);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: c_client HOST:PORT ROOT\n");
        return 2;
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    snprintf(root, sizeof root, "%s", argv[2]);
    zk = zookeeper_init(argv[1], on_session, 20000, 0, 0, 0);
    wait_for("connected", &connected, 1);
    creates();
    reads_and_writes();
    acls();
    multis();
    watches();
    expect("close", zookeeper_close(zk), ZOK);
    printf("%d steps\n", steps);
    return 0;
}

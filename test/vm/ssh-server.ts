import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { homedir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { generateKeyPair, type KeyPair } from '../../src/machine/keys.ts'
import { guestFiles } from './guest-files.ts'
import type { Home } from './nestvm.ts'

/**
 * The bundle's own dropbear on a loopback port, as the current user, with directories of its own: to nestvm it is
 * another host. Each connection is one process of it, as from inetd: by itself it would want to start its binary anew,
 * which needs the libraries that come with it.
 */
export class SshServer {
  readonly dir: string
  readonly hostKey = generateKeyPair('host')
  readonly login: KeyPair
  /** Not below /tmp: dropbear wants no directory above its keys that others may write to. */
  private readonly loginDir = mkdtempSync(join(homedir(), '.nvt-login-'))
  private readonly sessions = new Set<ChildProcess>()
  private readonly server: Server

  constructor(dir: string, login: KeyPair) {
    this.dir = dir
    this.login = login
    for (const path of ['state', 'data']) mkdirSync(join(dir, path), { recursive: true, mode: 0o700 })
    writeFileSync(join(this.loginDir, 'authorized_keys'), `${login.publicLine}\n`, { mode: 0o600 })
    writeFileSync(join(dir, 'host-key'), this.hostKey.dropbear, { mode: 0o600 })
    unpackDropbear(join(dir, 'dropbear'))
    this.server = createServer({ pauseOnConnect: true }, (socket) => this.serve(socket))
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve))
  }

  get port(): number {
    const address = this.server.address()
    return address && typeof address === 'object' ? address.port : 0
  }

  get url(): string {
    return `ssh://${userInfo().username}@127.0.0.1:${this.port}`
  }

  /** No more connections, and an end to those that there are. */
  async close(): Promise<void> {
    this.breakConnections()
    rmSync(this.loginDir, { recursive: true, force: true })
    await new Promise((resolve) => this.server.close(resolve))
  }

  /** An end to the connections that there are. */
  breakConnections(): void {
    for (const session of this.sessions) session.kill('SIGKILL')
  }

  private serve(socket: Socket): void {
    const root = join(this.dir, 'dropbear')
    const session = spawn(
      join(root, 'lib64/ld-linux-x86-64.so.2'),
      [
        ...['--library-path', join(root, 'lib/x86_64-linux-gnu'), join(root, 'usr/sbin/dropbear')],
        ...['-i', '-e', '-s', '-W', '1048576', '-r', join(this.dir, 'host-key'), '-D', this.loginDir],
      ],
      {
        stdio: [socket, socket, 'ignore'],
        env: {
          PATH: process.env.PATH,
          HOME: this.dir,
          XDG_STATE_HOME: join(this.dir, 'state'),
          XDG_DATA_HOME: join(this.dir, 'data'),
        },
      },
    )
    this.sessions.add(session)
    session.once('exit', () => this.sessions.delete(session))
    socket.destroy()
  }
}

/** Lets a home's nestvm in to another host, and know it. Returns where its key and what it knows lie. */
export function trust(there: SshServer, { dir, env }: Pick<Home, 'dir' | 'env'>): { identity: string; known: string } {
  const files = { identity: join(dir, 'identity'), known: join(dir, 'known_hosts') }
  writeFileSync(files.identity, there.login.openssh, { mode: 0o600 })
  know(there, files.known)
  useSshConfig(dir, env, [`IdentityFile ${files.identity}`, `UserKnownHostsFile ${files.known}`])
  Object.assign(env, { SSH_AUTH_SOCK: '' })
  return files
}

/** Puts the other host's key, or another one, where ssh looks for it. */
export function know(there: SshServer, path: string, key = there.hostKey): void {
  writeFileSync(path, `[127.0.0.1]:${there.port} ${key.publicLine}\n`)
}

/** An ssh client's configuration, for `env.PATH`: OpenSSH looks for it in the user's real home, whatever HOME says. */
function useSshConfig(dir: string, env: Record<string, string | undefined>, lines: readonly string[]): void {
  mkdirSync(join(dir, 'bin'), { recursive: true })
  writeFileSync(join(dir, 'ssh_config'), `${lines.join('\n')}\n`)
  const ssh = execFileSync('sh', ['-c', 'command -v ssh'], { encoding: 'utf8' }).trim()
  writeFileSync(join(dir, 'bin/ssh'), `#!/bin/sh\nexec ${ssh} -F ${dir}/ssh_config "$@"\n`, { mode: 0o755 })
  env.PATH = `${join(dir, 'bin')}:${process.env.PATH}`
}

/** Out of the guests' initramfs. */
function unpackDropbear(dir: string): void {
  for (const [name, data] of guestFiles('x86_64', /^(lib64\/|lib\/x86_64|usr\/sbin\/dropbear)/)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true })
    writeFileSync(join(dir, name), data, { mode: 0o755 })
  }
}

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import ssh2 from 'ssh2'
import { dataPaths } from '../../src/store/paths.ts'
import { mountScript } from '../../src/volume/mount.ts'
import { serveVolumes, type VolumeServer } from '../../src/volume/serve.ts'
import type { Home } from './nestvm.ts'

/** Serves a directory as `rw` and, read-only, as `ro`, to guests that reach it through an ssh connection each. */
export class Volumes implements AsyncDisposable {
  private readonly connections: { end(): void }[] = []

  private constructor(
    private readonly home: Home,
    private readonly server: VolumeServer,
  ) {}

  static async of(home: Home, dir: string): Promise<Volumes> {
    const exports = [
      { name: 'rw', dir, readOnly: false },
      { name: 'ro', dir, readOnly: true },
    ]
    return new Volumes(home, await serveVolumes({ exports }))
  }

  /** Mounts both, at /rw and /ro. */
  async mount(machine: string): Promise<void> {
    await this.home.ok('cp', volumeArchive(), `${machine}:/tmp/volume.cpio`)
    await this.home.ok('exec', machine, '--', 'sh', '-c', 'cd / && cpio -idu < /tmp/volume.cpio')
    await this.listenIn(machine)
    const at = { address: '127.0.0.1', port: 2049 }
    const script = mountScript([
      { ...at, name: 'rw', path: '/rw', readOnly: false },
      { ...at, name: 'ro', path: '/ro', readOnly: true },
    ])
    await this.home.ok('exec', machine, '--', 'sh', '-c', script)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.connections) connection.end()
    await this.server[Symbol.asyncDispose]()
  }

  /** What connects to the port in the guest is served here. */
  private async listenIn(machine: string): Promise<void> {
    const proxy = this.home.start('ssh-proxy', machine)
    if (!proxy.stdin || !proxy.stdout) throw new Error('no pipes')
    const client = new ssh2.Client()
    this.connections.push({ end: () => void [client.destroy(), proxy.kill()] })
    client.on('tcp connection', (_details, accept) => void this.server.serve(accept()))
    const config = await this.home.ok('ssh-config')
    const section = config.split('\n\n').find((text) => text.startsWith(`Host ${machine} `)) ?? ''
    const [, key = ''] = /IdentityFile "(.*)"/.exec(section) ?? []
    const sock = Duplex.from({ readable: proxy.stdout, writable: proxy.stdin })
    await new Promise<void>((resolve, reject) => {
      client.once('ready', () => client.forwardIn('127.0.0.1', 2049, (error) => (error ? reject(error) : resolve())))
      client.once('error', reject)
      client.connect({ sock, username: 'root', privateKey: readFileSync(key), readyTimeout: 0 })
    })
  }
}

function volumeArchive(): string {
  const { bundle } = dataPaths()
  const { directory } = JSON.parse(readFileSync(join(bundle, 'current-guest-x86_64.json'), 'utf8'))
  return join(bundle, directory, 'volume.cpio')
}

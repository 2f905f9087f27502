import { join } from 'node:path'
import { hostArch } from '../host/arch.ts'
import { contentsDir } from '../image/paths.ts'
import { LocalMachine } from '../machine/local.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { isHostUrl } from '../machine/ssh-settings.ts'
import { NestvmError } from '../store/error.ts'
import { checkSocketPath, dataPaths, machinePaths, socketDir, socketPath, statePaths } from '../store/paths.ts'

/** Where level 1 engines run: the host that nestvm runs on, or one reached over ssh. All paths are of that host. */
export interface Host {
  /** As records have it: `host`, or `ssh://user@server`. */
  name: string
  machine: Machine & { lost?: Promise<unknown> }
  bundleDir: string
  /** Directories named by keys, with what images are made of. */
  imagesDir: string
  /** For what containers write. */
  disksDir: string
  /** For the files of one level 1 guest's engine. */
  engineDir(id: string): string
  /** For its sockets. */
  socketDir(id: string): string
  /** Throws `SOCKET_PATH_TOO_LONG`. */
  socketPath(id: string, name: string): string
}

/** The name of the host that nestvm runs on. */
export const thisHost = 'host'

/** Whether a name is that of a host, rather than a guest's id. */
export function isHost(name: string): boolean {
  return name === thisHost || isHostUrl(name)
}

export function localHost(): Host {
  return {
    name: thisHost,
    machine: new LocalMachine(),
    bundleDir: dataPaths().bundle,
    imagesDir: contentsDir(),
    disksDir: statePaths().disks,
    engineDir: (id) => machinePaths(id).engine,
    ...{ socketDir, socketPath },
  }
}

/**
 * Connects to a host by its `ssh://` address. Its engines have their sockets beside their other files: what is in
 * XDG_RUNTIME_DIR there may go when its user logs out. Not in `machines` and `disks`, where a nestvm of that host keeps its
 * own.
 * Throws what `connectHost` throws, and `UNSUPPORTED_HOST`.
 */
export async function remoteHost(local: Machine, url: string, signal: AbortSignal): Promise<Host> {
  const { connectHost } = await import('../machine/ssh-host.ts')
  const machine = await connectHost(local, url, signal)
  try {
    const { stdout } = await run(machine, ['sh', '-c', lookScript], { timeoutMs: 20_000, signal })
    const [system = '', data = '', state = ''] = stdout.trim().split('\n')
    // It gets the bundle of this one.
    const wanted = `Linux ${hostArch() === 'arm64' ? 'aarch64' : hostArch()}`
    if (system !== wanted || !data.startsWith('/') || !state.startsWith('/')) {
      const what = system === wanted ? 'has no home directory for this user' : `is ${system}, not ${wanted}`
      throw new NestvmError('UNSUPPORTED_HOST', `${url} ${what}`, { details: { host: url, system } })
    }
    const engineDir = (id: string) => join(state, 'nestvm/engines', id)
    const path = (id: string, name: string) => checkSocketPath(join(engineDir(id), name), 'XDG_STATE_HOME there')
    return {
      ...{ name: url, machine, bundleDir: join(data, 'nestvm/bundle') },
      imagesDir: join(data, 'nestvm/images/contents'),
      disksDir: join(state, 'nestvm/engine-disks'),
      ...{ engineDir, socketDir: engineDir, socketPath: path },
    }
  } catch (error) {
    await machine[Symbol.asyncDispose]()
    throw error
  }
}

const lookScript = `uname -sm
echo "\${XDG_DATA_HOME:-$HOME/.local/share}"
echo "\${XDG_STATE_HOME:-$HOME/.local/state}"`

import type { Module, Seen } from './seen.ts'

/** For tests: an x86 machine with nothing on it, changed as given. */
export function exampleSeen(changes: Partial<Seen> = {}): Seen {
  return {
    ...{ arch: 'x86_64', kernelRelease: '6.1.0-13-amd64', uid: 0, userName: 'me', commandLine: 'quiet' },
    ...{ hypervisor: '', log: '', stateDir: '/home/me/.local/state/nestvm', device: undefined, groups: ['me'] },
    ...{
      cpuFlags: new Set<string>(),
      vmxFlags: new Set<string>(),
      programs: new Set(['modprobe', 'usermod', 'gpasswd']),
    },
    ...{ dmi: new Map(), modules: new Map(), holders: [], directories: new Set<string>(), files: new Map() },
    ...changes,
  }
}

/** A module that is loaded and not in use. */
export function loaded(parameters: Record<string, string>, users = 0): Module {
  return { builtIn: false, users, parameters: new Map(Object.entries(parameters)) }
}

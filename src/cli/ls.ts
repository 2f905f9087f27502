import { Command } from 'commander'
import type { ListedMachine } from '../stack/list.ts'
import { printJson, session } from './session.ts'
import { age, table } from './table.ts'
import { treeOf } from './tree.ts'

interface LsOptions {
  tree?: boolean
  all?: boolean
  json?: boolean
}

export function lsCommand(): Command {
  return new Command('ls')
    .description('List machines.')
    .option('--tree', 'show which machine runs in which')
    .option('-a, --all', 'also machines that have ended')
    .option('--json', 'print JSON')
    .action((options: LsOptions) =>
      session(options.json === true, async ({ context }) => {
        const { listMachines } = await import('../stack/list.ts')
        const machines = await listMachines(context)
        const shown = options.all ? machines : machines.filter(({ phase }) => phase !== 'exited' && phase !== 'dead')
        if (options.json) printJson(shown.map(forJson))
        else print(shown, options.tree === true)
        return 0
      }),
    )
}

type Listed = ListedMachine

function forJson({ path, level, phase, accel, accelReason, arch, engine, cpus, memoryMiB, ...rest }: Listed) {
  const { nested, createdAt, command, exitStatus, container, health, network, networkReason, ports, host } = rest
  const { pssBytes } = rest
  return {
    ...{ machine: path, level, phase, accel, accelReason, arch, engine, cpus, memoryMiB },
    ...{ nested, createdAt, command, exitStatus, host, image: container?.reference, health },
    ...{ network, networkReason, ports, pssBytes },
  }
}

function print(machines: readonly Listed[], tree: boolean): void {
  if (machines.length === 0) return
  const shown = tree ? inTree(machines) : machines.map((machine) => ({ machine, label: machine.path }))
  const rows = shown.map(({ machine, label }) => [
    label,
    `L${machine.level}`,
    machine.accel,
    String(machine.cpus),
    `${machine.memoryMiB}M`,
    machine.pssBytes === undefined ? '' : `${Math.round(machine.pssBytes / 2 ** 20)}M`,
    state(machine),
    age(machine.createdAt),
    machine.ports.map(formatPort).join(' '),
    machine.container?.reference ?? '',
    machine.command?.join(' ') ?? '',
  ])
  console.log(
    table([
      ['MACHINE', 'LEVEL', 'ACCEL', 'CPUS', 'MEMORY', 'PSS', 'STATE', 'AGE', 'PORTS', 'IMAGE', 'COMMAND'],
      ...rows,
    ]),
  )
}

function state({ phase, exitStatus, health }: Listed): string {
  const more = exitStatus ?? health
  return more === undefined ? phase : `${phase} (${more})`
}

function formatPort({ protocol, hostAddress, hostPort, guestPort }: Listed['ports'][number]): string {
  return `${hostAddress}:${hostPort}->${guestPort}/${protocol}`
}

function inTree(machines: readonly Listed[]): { machine: Listed; label: string }[] {
  const byPath = new Map(machines.map((machine) => [machine.path, machine]))
  return treeOf([...byPath.keys()]).flatMap(({ path, label }) => {
    const machine = byPath.get(path)
    return machine ? [{ machine, label }] : []
  })
}

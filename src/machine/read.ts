import { readFile } from 'node:fs/promises'
import { LocalMachine } from './local.ts'
import type { Machine } from './machine.ts'
import { run } from './run.ts'

/** The text of a small file on a machine; here without starting a program for it. */
export async function readText(machine: Machine, path: string): Promise<string> {
  if (machine instanceof LocalMachine) return readFile(path, 'utf8')
  return (await run(machine, ['cat', path], { timeoutMs: 60_000 })).stdout
}

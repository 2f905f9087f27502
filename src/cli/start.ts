import { createProgram } from './program.ts'

// Not awaited: the file that the build makes of this is a CommonJS module.
void createProgram().parseAsync()
